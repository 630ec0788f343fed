// A checkpoint with an engine around it, ready to be served: what `serve` and in-process commands start.
// Thread-safety: one thread makes and destroys it; see Engine for the rest.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "kernels/parallel/thread_pool.h"
#include "models/checkpoint.h"
#include "server/served_model.h"

namespace statehouse {

struct HostedModelOptions {
  std::string directory;
  std::string served_name;  // "": the directory's
  CheckpointOptions checkpoint;
  EngineOptions engine;
  int threads = 0;               // 0: one per core
  bool measure_machine = false;  // fills in ServedModel::machine
};

class HostedModel {
 public:
  // Loads, allocates, starts the engine thread and runs one step, so that the first request finds everything warm.
  static absl::StatusOr<std::unique_ptr<HostedModel>> Load(const HostedModelOptions& options);
  ~HostedModel();  // stops the engine

  const ServedModel& served() const { return served_; }
  const LoadedCheckpoint& checkpoint() const { return checkpoint_; }
  Engine& engine() const { return *engine_; }
  int threads() const { return pool_->num_threads(); }

 private:
  HostedModel() = default;
  absl::Status WarmUp();

  std::unique_ptr<kernels::ThreadPool> pool_;  // outlives the model, which outlives the engine
  LoadedCheckpoint checkpoint_;
  std::unique_ptr<Engine> engine_;
  ServedModel served_;
};

// What Models.GetModel answers.
v1::Model DescribeModel(const std::string& name, const LoadedCheckpoint& checkpoint, const Engine& engine);

}  // namespace statehouse
