// The whole server but its model: gRPC, metrics port, authentication, log. Starts before the model is loaded, so that
// probes see it load, and drains at the end. Thread-safety: one thread owns it; Reload() from any.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/auth.h"
#include "server/call_environment.h"
#include "server/grpc_server.h"
#include "server/metrics_server.h"

namespace statehouse {

struct ServerOptions {
  ListenOptions listen;
  std::string auth_tokens_file;  // "": no tokens
  std::string metrics_host = "127.0.0.1";
  int metrics_port = 0;  // 0: none; -1: any free one
  bool log_prompts = false;
  std::vector<std::string> operators;  // --operators: principals that may do what concerns everybody; none: "" may
  absl::Duration slow_reader_timeout = absl::Seconds(30);
  // Called once if the engine fails, after health has turned; from a thread of the server's. May be empty.
  std::function<void()> on_failed;
};

class Server {
 public:
  // `log` must outlive the server.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options, Log* log);
  ~Server();  // stops at once

  // From now on calls reach `model`, which must outlive the server.
  void Serve(const ServedModel* model);
  // Stops taking requests and lets those in flight finish until `timeout`; cancels the rest. Returns how many that
  // were.
  int64_t Drain(absl::Duration timeout);
  // Reads the tokens file again.
  void Reload();

  int port() const { return grpc_->port(); }
  int metrics_port() const { return http_ == nullptr ? 0 : http_->port(); }
  const std::string& addresses() const { return grpc_->addresses(); }
  bool serving() const { return grpc_->serving(); }
  const ServerMetrics& metrics() const { return metrics_; }

 private:
  // Turns health to NOT_SERVING when the engine has failed, and forgets imports that nobody goes on with.
  class EngineWatch;

  static constexpr WorkQueueLimits kNeverRefuses = {
      .max_calls = INT64_MAX, .max_bytes = INT64_MAX, .max_threads_per_owner = 4};

  explicit Server(Log* log) : log_(log) {}

  Log* const log_;
  std::function<void()> on_failed_;
  Authenticator auth_;
  ModelHandle model_;
  ServerMetrics metrics_;
  TurnTable turns_;
  ImportTable imports_;
  // Calls look at the environment and the table until the pump and the queue have let them go.
  CallTable calls_;
  CallEnvironment environment_;
  EventPump pump_;
  WorkQueue work_{"tokenising", 2};
  // They wait for disks and networks more than they compute. One principal has half of the threads of each at most, so
  // that what it waits for holds up nobody else. The second takes what must not be refused or held up.
  WorkQueue session_work_{"sessions", 8, {.max_threads_per_owner = 4}};
  WorkQueue settling_{"settling", 8, kNeverRefuses};
  WorkQueue transfers_{"transfers", 4, {.max_threads_per_owner = 2}};
  std::unique_ptr<GrpcServer> grpc_;
  std::shared_ptr<EngineWatch> watch_;
  std::unique_ptr<MetricsServer> http_;
};

}  // namespace statehouse
