#include "clients/cli/connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace statehouse::cli {
namespace {

absl::Status ReadPem(const char* flag, const std::string& path, std::string* contents) {
  if (path.empty()) return absl::OkStatus();
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  *contents = text.str();
  if (!file || contents->find("-----BEGIN") == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": ", path, " is not a readable PEM file"));
  }
  return absl::OkStatus();
}

bool IsUnix(const std::string& address) { return address.rfind("unix:", 0) == 0; }

bool SpeaksTls(const ConnectionOptions& options) {
  return !IsUnix(options.address) && (options.tls || !options.tls_ca.empty() || !options.tls_cert.empty());
}

// Whether what is sent to that address stays on this machine. Names but "localhost" may mean anything.
bool IsLocal(const std::string& address) {
  if (IsUnix(address)) return true;
  std::string host = address.substr(0, address.rfind(':'));
  if (host == "localhost") return true;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6{};
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(const ConnectionOptions& options) {
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-client-cert and --tls-client-key belong together: give both or neither");
  }
  if (!SpeaksTls(options)) {
    if (options.token.empty() || options.token_in_clear || IsLocal(options.address)) {
      return grpc::InsecureChannelCredentials();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("--token: it would go to ", options.address,
                     " unencrypted, for everybody on the way to read; add --tls or --tls-ca, or --token-in-clear if "
                     "something else encrypts"));
  }
  grpc::SslCredentialsOptions ssl;
  for (const auto& [flag, path, contents] : {std::tuple{"--tls-ca", &options.tls_ca, &ssl.pem_root_certs},
                                             std::tuple{"--tls-client-cert", &options.tls_cert, &ssl.pem_cert_chain},
                                             std::tuple{"--tls-client-key", &options.tls_key, &ssl.pem_private_key}}) {
    if (absl::Status status = ReadPem(flag, *path, contents); !status.ok()) return status;
  }
  return grpc::SslCredentials(ssl);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(const ConnectionOptions& options) {
  if (!IsUnix(options.address) && options.address.find(':') == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--address: \"%s\" is not an address; expected host:port, [v6]:port or unix:PATH", options.address));
  }
  absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> credentials = MakeCredentials(options);
  if (!credentials.ok()) return credentials.status();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(64 << 20);
  arguments.SetMaxSendMessageSize(64 << 20);
  // A proxy of the environment must not stand between two processes of one machine.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (!options.tls_server_name.empty()) arguments.SetSslTargetNameOverride(options.tls_server_name);
  auto connection = std::unique_ptr<Connection>(new Connection);
  connection->options_ = options;
  connection->channel_ = grpc::CreateCustomChannel(options.address, *credentials, arguments);
  return connection;
}

void Connection::Prepare(grpc::ClientContext* context, const std::string& request_id) const {
  if (options_.timeout_s > 0) {
    context->set_deadline(std::chrono::system_clock::now() +
                          std::chrono::microseconds(static_cast<int64_t>(options_.timeout_s * 1e6)));
  }
  if (!options_.token.empty()) context->AddMetadata("authorization", absl::StrCat("Bearer ", options_.token));
  if (!request_id.empty()) context->AddMetadata("x-request-id", request_id);
}

absl::Status Connection::Explain(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  std::string message = status.error_message();
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      // The library's own words for "nobody listens"; a server that answers says something else.
      if (message.find("connect") != std::string::npos || message.find("resol") != std::string::npos ||
          message.find("Socket closed") != std::string::npos || message.find("reset") != std::string::npos) {
        message = absl::StrFormat(
            "no server answers at %s (%s). Start one with: statehouse serve --model DIR; or name another with "
            "--address%s",
            options_.address, message,
            SpeaksTls(options_) || IsUnix(options_.address) ? "" : "; a server with TLS needs --tls or --tls-ca");
      }
      break;
    case grpc::StatusCode::UNAUTHENTICATED:
      absl::StrAppend(&message, options_.token.empty() ? ". Give a token with --token or STATEHOUSE_TOKEN"
                                                       : ". The token given is not one that the server knows");
      break;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      if (options_.timeout_s > 0) {
        absl::StrAppend(&message, absl::StrFormat(". Calls may take %g s; --timeout sets that", options_.timeout_s));
      }
      break;
    case grpc::StatusCode::UNIMPLEMENTED:
      if (message.empty()) message = absl::StrCat(options_.address, " answers, but is no Statehouse of this version");
      break;
    default:
      break;
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), message);
}

void NameSession(const std::string& session, grpc::ClientContext* context) {
  if (session.empty()) return;
  // Metadata is ASCII; other names go as hexadecimal digits, which route as well.
  const bool is_plain = std::all_of(session.begin(), session.end(), [](char c) { return c > ' ' && c <= '~'; });
  context->AddMetadata("x-statehouse-session", is_plain ? session : absl::BytesToHexString(session));
}

}  // namespace statehouse::cli
