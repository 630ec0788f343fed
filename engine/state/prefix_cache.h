// Shared beginnings of prompts, reused without anybody asking: looked up before a request is submitted, kept after it
// has ended.
//
//   auto use = cache->Begin({.principal = principal, .salt = salt}, request.get());   // sets from, orders snapshots
//   auto stream = engine->Submit(std::move(request));
//   ... events, to kDone ...
//   use->Keep(answer);                                                                // seals what was filled
//
// Only requests of one principal and one salt share anything; whoever asks with another finds what an unknown prompt
// finds. Results are the same bits as without it, if the model is batch-invariant; if not, the report says so. Memory:
// what is kept takes two thirds of the budget at most, snapshots that are being taken a third (one that is alone as
// much as could be kept); where those do not fit they are not ordered, and counted. What leaves memory goes to disk, if
// there is one, within a bound of its own. Thread-safety: every method may be called from any thread, a Use's by one at
// a time. Never call one from the engine thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "engine/state/prefix_index.h"
#include "engine/state/snapshot.h"
#include "engine/state/snapshot_vault.h"  // Tier
#include "models/model.h"

namespace statehouse {

struct PrefixCacheOptions {
  int64_t memory_bytes = 0;        // --prefix-cache-memory: snapshots that are kept and that are being taken
  int64_t disk_bytes = -1;         // most of those that left memory, counted as there; -1 and beyond: kDiskShare times
                                   // memory_bytes
  std::string salt = {};           // --cache-salt: part of every request's salt
  double efficiency_weight = 1.0;  // as in PrefixIndexOptions
  SnapshotVault* vault = nullptr;  // takes what has to leave memory; null: it is gone. Must outlive the cache
  std::shared_ptr<SnapshotMemory> memory = nullptr;  // for those that are taken; null: ordinary memory

  static constexpr int64_t kDiskShare = 8;
};

// What a request says about sharing.
struct PrefixWish {
  std::string_view principal = {};
  std::string_view salt = {};
  std::span<const int64_t> points = {};  // positions of the prompt to keep snapshots at, ascending, 1 … its size
  bool will_go_on = false;               // a conversation: the answer is likely to be part of a later prompt
};

// What was restored instead of computed, and why not more.
struct PrefixReport {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t matched_tokens = 0;  // seen before, restorable or not
  Tier tier = Tier::kNone;     // where the snapshot was
  Exactness exactness = Exactness::kExact;
  MissReason miss = MissReason::kBypassed;
  std::string why_bypassed;  // completes "not looked up: …"

  // One sentence: "restored 96 of 120 tokens from host memory; …".
  std::string Explanation() const;
};

class PrefixCache {
 public:
  class Use;
  struct Totals {
    PrefixIndex::Totals kept;
    int64_t taking_bytes = 0;                       // of snapshots that requests under way may fill
    int64_t queried_tokens = 0;                     // of prompts that were looked up
    int64_t cached_tokens = 0;                      // of those, restored
    std::array<int64_t, kNumTiers> hits{};          // requests that restored something, by tier
    std::array<int64_t, kNumMissReasons> misses{};  // requests, by reason; kNone: nothing was missed
    int64_t not_taken = 0;                          // snapshots that were not ordered for want of memory
  };

  // With less memory nothing could be kept: the shortest prefix must fit the part that is kept.
  static int64_t LeastMemory(const Model& model);
  // For an engine on `model`, which must outlive the cache.
  PrefixCache(const PrefixCacheOptions& options, const Model& model);
  // Takes what it put into the vault out again: nobody would find it. REQUIRES: no Use is left.
  ~PrefixCache();

  // Would Begin() have to ask a tier below memory now? Does not block.
  bool IsBelowMemory(const PrefixWish& wish, std::span<const int32_t> prompt);
  // Looks the prompt up, sets request->from and request->snapshots, and remembers the prompt. Blocks on the disk or the
  // network if what it finds lies there; a tier that does not give it is a miss that says so. REQUIRES: both are empty,
  // and request->num_prompt_logprobs is -1.
  std::unique_ptr<Use> Begin(const PrefixWish& wish, Request* request);
  // Counts a request that is not looked up.
  void CountBypass();

  int64_t memory_bytes() const { return options_.memory_bytes; }
  // The most that snapshots which left memory take on disk; 0: there is none.
  int64_t disk_bytes() const { return options_.disk_bytes; }
  Totals totals() const;

 private:
  struct Order {
    int64_t position = 0;
    bool is_wanted = false;  // named by the request, or the prompt's end: reserved before the others
  };
  std::string KeyOf(const PrefixWish& wish) const;
  // What to start from, with the report of it.
  std::shared_ptr<const Snapshot> Restore(const std::string& key, std::span<const int32_t> prompt,
                                          PrefixReport* report);
  std::string Spill(const std::shared_ptr<const Snapshot>& snapshot);
  void DropAbandoned();
  std::vector<Order> PlanOrders(const PrefixWish& wish, const std::string& key, const Request& request, int64_t cached);
  int64_t BytesAt(int64_t position) const;
  // Room among the snapshots that are being taken; false, and counted, if there is none.
  bool Reserve(int64_t bytes);

  const PrefixCacheOptions options_;
  const SlotShape shape_;
  const int64_t vocab_size_;
  const bool is_batch_invariant_;
  PrefixIndex index_;
  std::atomic<int64_t> taking_bytes_{0};
  std::atomic<int64_t> queried_tokens_{0};
  std::atomic<int64_t> cached_tokens_{0};
  std::atomic<int64_t> not_taken_{0};
  std::array<std::atomic<int64_t>, kNumTiers> hits_{};
  std::array<std::atomic<int64_t>, kNumMissReasons> misses_{};
};

// One request's part in it. Dropped without Keep(), it keeps nothing.
class PrefixCache::Use {
 public:
  ~Use();
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  const PrefixReport& report() const { return report_; }
  // Does Keep() need the answer's tokens?
  bool wants_answer() const { return wants_answer_; }
  // Seals what the engine filled and hands it over. `answer`: all tokens of the only output, or none if
  // !wants_answer(). REQUIRES: the stream's last event was taken; at most once.
  void Keep(std::span<const int32_t> answer);

 private:
  friend class PrefixCache;
  explicit Use(PrefixCache* cache) : cache_(cache) {}

  PrefixCache* const cache_;
  std::string key_;
  std::vector<int32_t> prompt_;
  std::vector<std::shared_ptr<SnapshotDraft>> drafts_;
  int64_t reserved_bytes_ = 0;
  bool wants_answer_ = false;
  PrefixReport report_;
};

}  // namespace statehouse
