// `statehouse generate --offline`: an engine in this process that answers the wire's messages, without the wire.
//
// Requests and events pass the same converters as a server's, so both say the same. Thread-safety: one Generate() at a
// time; Cancel() from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "server/commands/model_flags.h"
#include "server/hosted_model.h"
#include "statehouse/v1/generation.pb.h"

namespace CLI {
class App;
}

namespace statehouse {

struct OfflineFlags {
  ModelFlags model;
  EngineOptions engine;
};

// --model and the others; none is required, since they matter with --offline only. `flags` must outlive parsing.
void AddOfflineFlags(CLI::App& command, OfflineFlags* flags);

class OfflineGenerator {
 public:
  // Loads the model, with as many slots as `request` has outputs unless the flags say how many. `on_progress(bytes, of
  // bytes)` may be empty. INVALID_ARGUMENT names the flag.
  static absl::StatusOr<std::unique_ptr<OfflineGenerator>> Open(const OfflineFlags& flags,
                                                                const v1::GenerateRequest& request,
                                                                std::function<void(int64_t, int64_t)> on_progress);

  absl::Status Generate(const v1::GenerateRequest& request,
                        const std::function<void(const v1::GenerateEvent&)>& on_event);
  void Cancel();
  void ForgetCancel();

  const LoadedCheckpoint& checkpoint() const { return model_->checkpoint(); }

 private:
  explicit OfflineGenerator(std::unique_ptr<HostedModel> model) : model_(std::move(model)) {}

  const std::unique_ptr<HostedModel> model_;
  std::mutex mu_;
  std::shared_ptr<EventStream> running_;  // guarded by mu_
  bool cancelled_ = false;                // guarded by mu_
};

}  // namespace statehouse
