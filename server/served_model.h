// What the services know of the model that is served, and the place where it appears once it is loaded.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/sessions/session_store.h"
#include "engine/state/fingerprint.h"
#include "engine/state/prefix_cache.h"
#include "engine/state/slot_pool.h"
#include "engine/state/snapshot_memory.h"
#include "engine/state/snapshot_vault.h"
#include "models/config.h"
#include "models/tokenizer/chat_template.h"
#include "models/tokenizer/fim.h"
#include "models/tokenizer/tokenizer.h"
#include "statehouse/v1/admin.pb.h"
#include "statehouse/v1/models.pb.h"

namespace statehouse {

// Immutable while calls use it; the pointers' targets outlive it.
struct ServedModel {
  std::string name;                      // --served-model-name
  int64_t vocab_size = 0;                // of the model: ids are in [0, vocab_size)
  int64_t max_prompt_tokens = 0;         // of a request; 0: no limit
  int64_t max_prompt_bytes = 0;          // no prompt of max_prompt_tokens comes from a longer text; 0: no limit
  const Tokenizer* tokenizer = nullptr;  // null: token ids only
  std::string why_no_tokenizer;
  std::optional<ChatTemplate> chat_template;
  std::string why_no_chat_template;
  std::optional<FillInTheMiddle> fim;
  std::string why_no_fim;
  GenerationDefaults defaults;
  std::string device;                        // for people: "cpu, 8 threads", "NVIDIA H200 (cuda:0)"
  std::array<int64_t, 6> warm_up_outputs{};  // that the engine counted before it was served, by FinishReason
  v1::Model card;                            // the answer of GetModel
  std::optional<v1::Machine> machine;        // the same in Admin.GetStatus; empty: not measured
  Engine* engine = nullptr;
  SessionStore* sessions = nullptr;     // null: none are kept
  SnapshotVault* vault = nullptr;       // where their snapshots lie; null: nowhere
  std::optional<SlotShape> slot_shape;  // set with `sessions`, as is the one below
  Fingerprint fingerprint;
  std::shared_ptr<SnapshotMemory> snapshot_memory;  // null: ordinary memory
  PrefixCache* prefix_cache = nullptr;              // null: --no-enable-prefix-caching
};

// Empty while the model loads. Thread-safety: any thread.
class ModelHandle {
 public:
  void Set(const ServedModel* model) { model_.store(model, std::memory_order_release); }
  // Null until loaded.
  const ServedModel* get() const { return model_.load(std::memory_order_acquire); }
  // The model of that name ("" is the only one). UNAVAILABLE while loading; NOT_FOUND lists the names.
  absl::StatusOr<const ServedModel*> Find(std::string_view name) const;

 private:
  std::atomic<const ServedModel*> model_{nullptr};
};

}  // namespace statehouse
