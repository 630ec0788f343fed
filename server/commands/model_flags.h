// The flags of every command that runs a model in this process: which checkpoint, how it is held, how many sequences.
// Thread-safety: one thread, at start.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "kernels/parallel/thread_pool.h"
#include "models/checkpoint.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace statehouse {

struct ModelFlags {
  std::string model;                 // --model: a checkpoint directory
  std::string dtype = "auto";        // --dtype
  std::string load_format = "auto";  // --load-format
  std::string switch_over = "auto";  // --switch-over
  int64_t max_tail_tokens = 0;       // --max-tail-tokens
  std::string chat_template;         // --chat-template; "": the checkpoint's own
  int threads = 0;                   // --threads; 0: one per core
  std::string device = "auto";       // --device
  bool deterministic = false;        // --deterministic
  double gpu_memory_utilization = 0.9;
};

// `flags` and `options` must outlive parsing.
void AddModelFlags(CLI::App& command, ModelFlags* flags);
void AddEngineFlags(CLI::App& command, EngineOptions* options);

// INVALID_ARGUMENT names the flag. `progress` as in LoadOptions; may be empty.
absl::StatusOr<CheckpointOptions> ToCheckpointOptions(const ModelFlags& flags,
                                                      std::function<void(int64_t, int64_t)> progress = {});

// A flag for a time span: "30", "30s", "1m30s", "500ms".
CLI::Option* AddDurationFlag(CLI::App& command, const std::string& name, absl::Duration* value,
                             const std::string& help);
// A flag for bytes, as ParseBytes reads them.
CLI::Option* AddBytesFlag(CLI::App& command, const std::string& name, int64_t* value, const std::string& help);

}  // namespace statehouse
