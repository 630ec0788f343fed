#include "server/grpc_server.h"

#include <unistd.h>

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "server/admin_service.h"
#include "server/generation_service.h"
#include "server/grpc_credentials.h"
#include "server/models_service.h"
#include "server/tokenizer_service.h"

namespace statehouse {
namespace {

std::string TcpAddress(const std::string& host, int port) {
  const bool is_ipv6 = host.find(':') != std::string::npos && host.front() != '[';
  return absl::StrCat(is_ipv6 ? "[" : "", host, is_ipv6 ? "]" : "", ":", port);
}

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(duration), INT_MAX));
}

void SetLimits(const ListenOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  builder->SetMaxSendMessageSize(static_cast<int>(options.max_message_bytes));
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a port that is taken must be an error
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_time));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive_timeout));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              Milliseconds(options.min_client_ping_interval));
}

absl::Status CheckOptions(const ListenOptions& options) {
  if (options.port < 0 && options.unix_socket.empty()) {
    return absl::InvalidArgumentError("--port, --unix-socket: there is no address to listen on");
  }
  if (options.port > 65535)
    return absl::InvalidArgumentError(absl::StrCat("--port: ", options.port, "; expected 0 to 65535"));
  if (options.max_message_bytes < 1024 || options.max_message_bytes > INT_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-message-bytes: ", options.max_message_bytes, "; expected 1 KiB to ", INT_MAX, " bytes"));
  }
  const bool plaintext = options.tls_cert.empty() && options.tls_key.empty();
  if (options.port >= 0 && plaintext && !IsLoopback(options.host) && !options.allow_plaintext) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--host: ", options.host,
        " can be reached from other machines, and without TLS everything is readable on the way; ",
        "give --tls-cert and --tls-key, or --allow-plaintext if something in front of this server encrypts"));
  }
  return absl::OkStatus();
}

// A socket file that a crashed server left behind would block the address; anything else there is not ours to remove.
absl::Status RemoveStaleSocket(const std::string& path) {
  std::error_code error;
  const auto type = std::filesystem::status(path, error).type();
  if (type == std::filesystem::file_type::not_found) return absl::OkStatus();
  if (type != std::filesystem::file_type::socket) {
    return absl::InvalidArgumentError(absl::StrCat("--unix-socket: ", path, " exists and is not a socket"));
  }
  if (unlink(path.c_str()) != 0)
    return absl::InvalidArgumentError(absl::StrCat("--unix-socket: cannot replace ", path));
  return absl::OkStatus();
}

class CallbackGrpcServer final : public GrpcServer {
 public:
  CallbackGrpcServer(const CallEnvironment* environment, std::string device)
      : generation_(environment),
        tokenizer_(environment),
        models_(environment),
        admin_(environment, std::move(device)),
        health_({v1::Generation::service_full_name(), v1::Tokenizer::service_full_name(),
                 v1::Models::service_full_name(), v1::Admin::service_full_name()}) {}
  ~CallbackGrpcServer() override { Stop(absl::Now()); }

  absl::Status Listen(const ListenOptions& options) {
    auto credentials = MakeServerCredentials(options);
    if (!credentials.ok()) return credentials.status();
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    SetLimits(options, &builder);
    if (options.port >= 0) builder.AddListeningPort(TcpAddress(options.host, options.port), *credentials, &port_);
    if (!options.unix_socket.empty()) {
      if (absl::Status status = RemoveStaleSocket(options.unix_socket); !status.ok()) return status;
      // The file's permissions guard it: TLS would add nothing.
      builder.AddListeningPort(absl::StrCat("unix:", options.unix_socket), grpc::InsecureServerCredentials());
    }
    builder.RegisterService(&generation_);
    builder.RegisterService(&tokenizer_);
    builder.RegisterService(&models_);
    builder.RegisterService(&admin_);
    builder.RegisterService(&health_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen on ", options.port >= 0 ? TcpAddress(options.host, options.port) : "",
                       options.unix_socket.empty() ? "" : " and unix:", options.unix_socket,
                       "; is another server running there? Choose another --port, --host or --unix-socket"));
    }
    Describe(options);
    return absl::OkStatus();
  }

  int port() const override { return port_; }
  const std::string& addresses() const override { return addresses_; }
  void SetServing(bool serving) override { health_.SetServing(serving); }
  bool serving() const override { return health_.serving(); }
  void Stop(absl::Time deadline) override {
    if (server_ == nullptr) return;
    health_.SetServing(false);
    health_.EndWatches();
    server_->Shutdown(absl::ToChronoTime(deadline));
    server_->Wait();
    server_.reset();
  }

 private:
  void Describe(const ListenOptions& options) {
    if (options.port >= 0) {
      const char* kind = options.tls_cert.empty() ? "plaintext" : options.tls_client_ca.empty() ? "TLS" : "mutual TLS";
      addresses_ = absl::StrCat(TcpAddress(options.host, port_), " (", kind, ")");
    }
    if (!options.unix_socket.empty()) {
      absl::StrAppend(&addresses_, addresses_.empty() ? "" : ", ", "unix:", options.unix_socket);
    }
  }

  GenerationService generation_;
  TokenizerService tokenizer_;
  ModelsService models_;
  AdminService admin_;
  HealthService health_;
  int port_ = 0;
  std::string addresses_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host == "[::1]" || host.starts_with("127.");
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const ListenOptions& options,
                                                              const CallEnvironment* environment, std::string device) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  auto server = std::make_unique<CallbackGrpcServer>(environment, std::move(device));
  if (absl::Status status = server->Listen(options); !status.ok()) return status;
  return std::unique_ptr<GrpcServer>(std::move(server));
}

}  // namespace statehouse
