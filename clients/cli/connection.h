// How a client command reaches a server: address, TLS, token, time limit; and what to tell the user when it does not.
//
// Thread-safety: a Connection may be shared between threads.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cli/request_text.h"

namespace statehouse::cli {

inline constexpr char kDefaultAddress[] = "127.0.0.1:50051";
inline constexpr int kLargestMessageBytes = 64 << 20;  // that a client sends or takes

struct ConnectionOptions {
  std::string address = kDefaultAddress;    // host:port, [v6]:port, or unix:PATH
  bool tls = false;                         // also switched on by tls_ca and tls_cert; a socket file needs none
  std::string tls_ca = {};                  // PEM file of the authority; empty: the system's
  std::string tls_cert = {}, tls_key = {};  // PEM files of this client, for mutual TLS
  std::string tls_server_name = {};         // name to expect in the server's certificate; empty: the address's host
  std::string token = {};                   // bearer token; empty: none is sent
  bool token_in_clear = false;              // send it to other machines even without TLS
  double timeout_s = 0;                     // deadline of each call in seconds; 0: none
};

class Connection {
 public:
  // Reads the files; connects only when the first call is made. Errors: CheckAddress()'s and
  // MakeChannelCredentials()'s.
  static absl::StatusOr<std::unique_ptr<Connection>> Open(const ConnectionOptions& options);

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  const ConnectionOptions& options() const { return options_; }
  // Sets deadline, token and, unless empty, `x-request-id` on a fresh context. IsMetadata(request_id).
  void Prepare(grpc::ClientContext* context, const std::string& request_id = "") const;
  // For calls that are repeated until a server answers: where it was lost, waits up to a second for it to come back.
  // Returns at once on a channel that has not been used yet.
  void AwaitLostServer() const;
  // The same status as absl::Status, its message completed by what the user can do about it.
  absl::Status Explain(const grpc::Status& status) const;

 private:
  Connection() = default;
  ConnectionOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
};

// Whether gRPC takes that as a metadata value: it ends the program at any other.
bool IsMetadata(std::string_view value);

// Tells a proxy before several servers which session (or import) the call is about, so that calls about one go to one
// server, where its snapshots are. Nothing for an empty name.
void NameSession(const std::string& session, grpc::ClientContext* context);

// One unary call, `call(context)`, that says nothing of its own; its status, explained.
template <typename Call>
absl::Status Ask(const Connection& connection, const Call& call, const std::string& session = "") {
  grpc::ClientContext context;
  connection.Prepare(&context);
  NameSession(session, &context);
  return connection.Explain(call(&context));
}
// One that sends `request`, unless CheckText() finds it wanting. `session` is what it is about, "" for none.
template <typename Call>
absl::Status Ask(const Connection& connection, const google::protobuf::Message& request, const Call& call,
                 const std::string& session = "") {
  if (absl::Status status = CheckText(request); !status.ok()) return status;
  return Ask(connection, call, session);
}

}  // namespace statehouse::cli
