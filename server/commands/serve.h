// `statehouse serve`: one model, served over gRPC until a signal comes. Thread-safety: one thread, once per process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/state/prefix_cache.h"
#include "server/commands/actions.h"
#include "server/commands/model_flags.h"
#include "server/grpc_server.h"
#include "server/hosted_sessions.h"

namespace statehouse {

struct ServeOptions {
  ModelFlags model;
  EngineOptions engine;
  SessionSettings sessions;
  ListenOptions listen;
  std::string served_model_name;  // "": the directory's name
  std::string auth_tokens_file;
  std::vector<std::string> operators;  // none: callers without a name
  std::string metrics_host = "127.0.0.1";
  int metrics_port = 9464;  // 0: off
  absl::Duration shutdown_timeout = absl::Seconds(30);
  std::string log_format = "text";
  bool log_prompts = false;
  bool enable_prefix_caching = true;
  PrefixCacheOptions prefix_cache;
  int64_t page_locked_bytes = 0;  // as HostedModelOptions
};

// Adds the command with all its flags.
void AddServeCommand(CLI::App& root, CommandActions* actions);

// Serves until SIGTERM or SIGINT, then finishes what is in flight. Returns the program's exit status: 0 after a signal,
// 1 if the server could not start, with a message that says what to change.
int RunServe(const ServeOptions& options);

}  // namespace statehouse
