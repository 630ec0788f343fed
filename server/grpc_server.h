// The gRPC server: addresses, credentials, limits and services. Listens at once, with health NOT_SERVING, so that
// probes can see a model load; calls before SetServing(true) end with UNAVAILABLE. Thread-safety: one thread owns it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/call_environment.h"
#include "server/health_service.h"

namespace statehouse {

struct ListenOptions {
  std::string host = "127.0.0.1";
  int port = 50051;         // 0: any free one; -1: no TCP
  std::string unix_socket;  // a path; "": none
  bool allow_plaintext = false;
  std::string tls_cert;  // PEM files
  std::string tls_key;
  std::string tls_client_ca;  // set: clients must show a certificate of this authority
  int64_t max_message_bytes = 64 << 20;
  absl::Duration keepalive_time = absl::Minutes(2);      // between pings on a quiet connection
  absl::Duration keepalive_timeout = absl::Seconds(20);  // without an answer: the connection is dead
  absl::Duration min_client_ping_interval = absl::Seconds(10);
  int max_concurrent_streams = 1024;  // per connection
};

class GrpcServer {
 public:
  // INVALID_ARGUMENT names the flag to change; UNAVAILABLE names an address that cannot be listened on. `environment`
  // must outlive the server.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const ListenOptions& options,
                                                           const CallEnvironment* environment);
  virtual ~GrpcServer() = default;  // Stop(now)

  virtual int port() const = 0;                      // in use; 0 without TCP
  virtual const std::string& addresses() const = 0;  // for people: "127.0.0.1:50051 (plaintext), unix:/run/x"
  virtual void SetServing(bool serving) = 0;
  virtual bool serving() const = 0;
  // Takes no new call and waits for those in flight; cancels them at `deadline`.
  virtual void Stop(absl::Time deadline) = 0;
};

// Whether `host` names this machine alone.
bool IsLoopback(const std::string& host);

}  // namespace statehouse
