#include "server/grpc_server.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "server/admin_service.h"
#include "server/generation_service.h"
#include "server/grpc_credentials.h"
#include "server/listen_error.h"
#include "server/models_service.h"
#include "server/sessions_service.h"
#include "server/tokenizer_service.h"
#include "server/unreadable_requests.h"

namespace statehouse {
namespace {

// What connections and messages that are not yet read may take together, beside the largest messages.
constexpr int64_t kLeastQuota = int64_t{1} << 30;

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(duration), INT_MAX));
}

void SetLimits(const ListenOptions& options, grpc::ServerBuilder* builder) {
  grpc::ResourceQuota quota("statehouse");
  quota.Resize(static_cast<size_t>(std::max(kLeastQuota, 4 * options.max_message_bytes)));
  builder->SetResourceQuota(quota);
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
  if (options.port >= 0 && options.host.empty()) {
    return absl::InvalidArgumentError("--host: it is empty; expected an address, as 127.0.0.1 or 0.0.0.0");
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

// Whether a process listens on the socket file: 0, or the error of connecting to it.
int ConnectError(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::copy(path.begin(), path.end(), address.sun_path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const bool connected = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  const int error = connected ? 0 : errno;
  close(fd);
  return error;
}

// A socket file that a crashed server left behind would block the address; anything else there is not ours to remove.
absl::Status RemoveStaleSocket(const std::string& path) {
  constexpr size_t kLongestPath = sizeof(sockaddr_un::sun_path) - 1;
  if (path.size() > kLongestPath) {
    return absl::InvalidArgumentError(
        absl::StrCat("--unix-socket: the path has ", path.size(), " bytes; a socket's may have ", kLongestPath));
  }
  std::error_code error;
  const auto type = std::filesystem::status(path, error).type();
  if (type == std::filesystem::file_type::not_found) return absl::OkStatus();
  if (type != std::filesystem::file_type::socket) {
    return absl::InvalidArgumentError(absl::StrCat("--unix-socket: ", path, " exists and is not a socket"));
  }
  const int connect_error = ConnectError(path);
  if (connect_error == 0 || connect_error == EAGAIN) {  // EAGAIN: its backlog is full
    return absl::UnavailableError(
        absl::StrCat("--unix-socket: another server answers at ", path, "; stop it, or choose another path"));
  }
  if (connect_error != ECONNREFUSED) {
    return absl::InvalidArgumentError(
        absl::StrCat("--unix-socket: ", path, " may belong to another server: ", std::strerror(connect_error)));
  }
  if (unlink(path.c_str()) != 0)
    return absl::InvalidArgumentError(absl::StrCat("--unix-socket: cannot replace ", path));
  return absl::OkStatus();
}

// After gRPC could not: each address that is in the way of itself, with what the system says.
absl::Status ListenError(const ListenOptions& options) {
  std::string problems;
  const auto add = [&problems](const std::string& address, const std::string& why, const char* flags) {
    if (why.empty()) return;
    absl::StrAppend(&problems, problems.empty() ? "" : "; ", "cannot listen on ", address, ": ", why,
                    "; choose another ", flags);
  };
  if (options.port >= 0) {
    add(TcpAddress(options.host, options.port), WhyNotListening(options.host, options.port), "--port or --host");
  }
  if (!options.unix_socket.empty()) {
    add(absl::StrCat("unix:", options.unix_socket), WhyNotListening(options.unix_socket), "--unix-socket");
  }
  if (!problems.empty()) return absl::UnavailableError(problems);
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", options.port >= 0 ? TcpAddress(options.host, options.port) : "",
                   options.port >= 0 && !options.unix_socket.empty() ? " and " : "",
                   options.unix_socket.empty() ? "" : absl::StrCat("unix:", options.unix_socket),
                   ", and now nothing is in the way; try again"));
}

class CallbackGrpcServer final : public GrpcServer {
 public:
  explicit CallbackGrpcServer(const CallEnvironment* environment)
      : environment_(environment),
        protobuf_log_(environment->log),
        generation_(environment),
        tokenizer_(environment),
        models_(environment),
        sessions_(environment),
        admin_(environment),
        health_({v1::Generation::service_full_name(), v1::Tokenizer::service_full_name(),
                 v1::Models::service_full_name(), v1::Sessions::service_full_name(), v1::Admin::service_full_name()}) {}
  ~CallbackGrpcServer() override { Stop(absl::Now()); }

  absl::Status Listen(const ListenOptions& options) {
    auto credentials = MakeServerCredentials(options);
    if (!credentials.ok()) return credentials.status();
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    SetLimits(options, &builder);
    builder.experimental().SetInterceptorCreators(AnswerUnreadableRequests(environment_));
    if (options.port >= 0) builder.AddListeningPort(TcpAddress(options.host, options.port), *credentials, &port_);
    if (!options.unix_socket.empty()) {
      if (absl::Status status = RemoveStaleSocket(options.unix_socket); !status.ok()) return status;
      // The file's permissions guard it: TLS would add nothing.
      builder.AddListeningPort(absl::StrCat("unix:", options.unix_socket), grpc::InsecureServerCredentials());
    }
    builder.RegisterService(&generation_);
    builder.RegisterService(&tokenizer_);
    builder.RegisterService(&models_);
    builder.RegisterService(&sessions_);
    builder.RegisterService(&admin_);
    builder.RegisterService(&health_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return ListenError(options);
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

  const CallEnvironment* const environment_;
  const ProtobufLog protobuf_log_;
  GenerationService generation_;
  TokenizerService tokenizer_;
  ModelsService models_;
  SessionsService sessions_;
  AdminService admin_;
  HealthService health_;
  int port_ = 0;
  std::string addresses_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

bool IsLoopback(const std::string& host) {
  if (host == "localhost" || host == "[::1]") return true;
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6{};
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const ListenOptions& options,
                                                              const CallEnvironment* environment) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  auto server = std::make_unique<CallbackGrpcServer>(environment);
  if (absl::Status status = server->Listen(options); !status.ok()) return status;
  return std::unique_ptr<GrpcServer>(std::move(server));
}

}  // namespace statehouse
