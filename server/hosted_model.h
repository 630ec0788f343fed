// A checkpoint with an engine around it, ready to be served: what `serve` and in-process commands start.
// Thread-safety: one thread makes and destroys it; see Engine for the rest.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/state/prefix_cache.h"
#include "kernels/parallel/thread_pool.h"
#include "models/checkpoint.h"
#include "server/hosted_sessions.h"
#include "server/served_model.h"

namespace statehouse {

struct HostedModelOptions {
  std::string directory;
  std::string served_name;  // "": the directory's
  CheckpointOptions checkpoint;
  EngineOptions engine;
  std::optional<SessionSettings> sessions;  // empty: none are kept
  int threads = 0;                          // 0: one per core
  bool enable_prefix_caching = false;
  PrefixCacheOptions prefix_cache;  // memory_bytes 0: as much as all slots, at most a quarter of what the host has free
  int64_t page_locked_bytes = 0;    // --snapshot-page-locked-memory, as SnapshotMemory::NumBlocks() takes it
  bool measure_machine = false;     // fills in ServedModel::machine, if the CPU is what computes
};

class HostedModel {
 public:
  // Loads, allocates, starts the engine thread and runs one step, so that the first request finds everything warm.
  static absl::StatusOr<std::unique_ptr<HostedModel>> Load(const HostedModelOptions& options);
  ~HostedModel();  // stops the engine

  const ServedModel& served() const { return served_; }
  const LoadedCheckpoint& checkpoint() const { return checkpoint_; }
  Engine& engine() const { return *engine_; }
  // Null: none are kept.
  HostedSessions* sessions() const { return sessions_.get(); }
  int threads() const { return pool_->num_threads(); }
  // What was asked for and comes out otherwise, or is more than this host has.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  HostedModel() = default;
  absl::Status WarmUp();
  absl::Status MakeSnapshotMemory(const HostedModelOptions& options);
  std::optional<int64_t> BytesForSnapshots() const;
  absl::Status OpenSessions(const SessionSettings& settings);
  absl::Status OpenPrefixCache(const HostedModelOptions& options);
  void WarnOfMemory(const HostedModelOptions& options);

  std::unique_ptr<kernels::ThreadPool> pool_;  // outlives the model, which outlives the engine
  LoadedCheckpoint checkpoint_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<HostedSessions> sessions_;
  std::unique_ptr<PrefixCache> prefix_cache_;  // may be null
  ServedModel served_;
  std::vector<std::string> warnings_;
};

// What Models.GetModel answers.
v1::Model DescribeModel(const std::string& name, const LoadedCheckpoint& checkpoint, const Engine& engine);

}  // namespace statehouse
