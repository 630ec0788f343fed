#include "clients/cli/connection.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/client_credentials.h"
#include "clients/cli/server_address.h"

namespace statehouse::cli {
namespace {

// A server that comes back is to be found about as fast as it does.
constexpr int kFirstBackoffMs = 200, kLongestBackoffMs = 1000;
// The time that one attempt to connect has: gRPC's "minimum backoff".
constexpr int kConnectMs = 5000;

// What a failed handshake is about, and what helps; empty if `message`, the library's own, tells of none.
std::string ExplainTls(const ConnectionOptions& options, const std::string& message) {
  const auto says = [&](const char* words) { return message.find(words) != std::string::npos; };
  const std::string server = absl::StrCat("the server at ", options.address), why = absl::StrCat(" (", message, ")");
  if (says("certificate verify failed")) {
    return absl::StrCat(server, " shows a certificate that no authority trusted here signed", why,
                        "; --tls-ca names the one that did");
  }
  if (says("is not in peer certificate")) {
    return absl::StrCat(server, " shows a certificate for another name", why,
                        "; --tls-server-name names the one to expect");
  }
  if (says("wrong version number")) return absl::StrCat(server, " speaks no TLS", why, "; leave the --tls flags out");
  if (says("handshake failed")) return absl::StrCat("TLS with ", server, " failed", why);
  if (says("empty address list")) {
    return absl::StrCat("TLS cannot be set up", why, "; the system's authorities may be missing: --tls-ca names one");
  }
  if (says("failed to connect") && (says("Socket closed") || says("reset"))) {
    return absl::StrCat(server, " ended the connection while TLS was set up", why,
                        "; it may ask for a certificate that it trusts: --tls-client-cert and --tls-client-key");
  }
  return "";
}

// The library's own words for "nobody listens", in ours; a server that answers says something else.
std::string ExplainUnreachable(const ConnectionOptions& options, const std::string& message) {
  const bool is_tls = SpeaksTls(options);
  if (std::string tls = is_tls ? ExplainTls(options, message) : ""; !tls.empty()) return tls;
  for (const char* words : {"connect", "resol", "Socket closed", "reset"}) {
    if (message.find(words) == std::string::npos) continue;
    return absl::StrFormat(
        "no server answers at %s (%s). Start one with: statehouse serve --model DIR; or name another with --address%s",
        options.address, message,
        is_tls || IsSocketFile(options.address) ? "" : "; a server with TLS needs --tls or --tls-ca");
  }
  return message;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(const ConnectionOptions& options) {
  if (absl::Status status = CheckAddress(options.address); !status.ok()) return status;
  absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> credentials = MakeChannelCredentials(options);
  if (!credentials.ok()) return credentials.status();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kLargestMessageBytes);
  arguments.SetMaxSendMessageSize(kLargestMessageBytes);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstBackoffMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLongestBackoffMs);
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

void Connection::AwaitLostServer() const {
  constexpr std::chrono::seconds kMostWait{1};
  // Whatever the pauses, a channel looks for its server only while somebody waits for it, or every five seconds.
  if (channel_->GetState(/*try_to_connect=*/false) != GRPC_CHANNEL_TRANSIENT_FAILURE) return;
  channel_->WaitForConnected(std::chrono::system_clock::now() + kMostWait);
}

absl::Status Connection::Explain(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  std::string message = status.error_message();
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      message = ExplainUnreachable(options_, message);
      break;
    case grpc::StatusCode::UNAUTHENTICATED:
      // Without a token, the server speaks of metadata.
      message = options_.token.empty()
                    ? absl::StrCat(options_.address, " asks for a token: give one with --token or STATEHOUSE_TOKEN")
                    : absl::StrCat("--token: ", message);
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

bool IsMetadata(std::string_view value) {
  return std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

void NameSession(const std::string& session, grpc::ClientContext* context) {
  if (session.empty()) return;
  // Metadata is ASCII; other names go as hexadecimal digits, which route as well.
  const bool is_plain = std::all_of(session.begin(), session.end(), [](char c) { return c > ' ' && c <= '~'; });
  context->AddMetadata("x-statehouse-session", is_plain ? session : absl::BytesToHexString(session));
}

}  // namespace statehouse::cli
