// Finds the deepest snapshot that matches a prompt, so that shared beginnings are not computed again.
//
// A radix tree over token ids, one per salt (a tenant's tree cannot be reached from another salt; the budget is
// shared). Snapshots hang at the positions they were taken at; one that lies a little beyond where a prompt leaves its
// path is taken back to there, if that is exact. What is kept under a budget of bytes is what saves most
// arithmetic per byte and was used lately: score = recency + weight · (FLOPs saved beyond the next snapshot above, per
// byte), both scaled to [0, 1] over what is held; the lowest score goes first. After "Marconi: Prefix Caching for the
// Era of Hybrid LLMs" (Pan et al., arXiv 2411.19379). Every answer says how far the prompt matched, and why no more of
// it was found. Thread-safety: every method may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/state/snapshot.h"

namespace statehouse {

struct PrefixIndexOptions {
  int64_t budget_bytes = 0;  // of snapshots
  // Remembered of prompts, 4 bytes each, every path and salt with what it costs beside them; beyond, paths without
  // snapshots are forgotten.
  int64_t max_tokens = 16 << 20;
  double efficiency_weight = 1.0;  // 0: least recently used
  // Arithmetic of computing the first `position` tokens; null: one per token.
  std::function<double(int64_t position)> flops = nullptr;
  int64_t lower_budget_bytes = 0;  // of those in a tier below, counted as in memory; the longest unused go first
  // Puts a snapshot that has to go into a tier below, and returns its key there; empty: it is gone. Called with the
  // index locked, so it must be quick. Null: there is no tier below.
  std::function<std::string(const std::shared_ptr<const Snapshot>&)> spill = nullptr;
};

// Why no more of a prompt was found.
enum class MissReason {
  kNone,        // all of it was
  kNothing,     // no prompt began like this
  kDiverged,    // it is known up to `matched` tokens, and goes on in another way from there
  kNoSnapshot,  // known farther than the snapshot, but none was taken there
  kEvicted,     // one was taken there, and had to go
  kRefused,     // one is there, of another numeric mode
  kTier,        // one is there, and its tier does not give it, or it is damaged
  kBypassed,    // not looked up
};
inline constexpr int kNumMissReasons = 8;
const char* MissReasonName(MissReason reason);

struct PrefixMatch {
  std::shared_ptr<const Snapshot> snapshot;  // null: none here
  std::string lower;                         // then, if not empty: the key of one in a tier below
  int64_t position = 0;                      // to start from; the one below may lie beyond and must be taken back
  int64_t matched = 0;                       // tokens of the prompt that were seen before
  MissReason reason = MissReason::kNothing;
};

class PrefixIndex {
 public:
  explicit PrefixIndex(const PrefixIndexOptions& options);
  ~PrefixIndex();

  // The deepest usable snapshot, taken back where need be; one of the whole prompt must hold logits. Counts as a use.
  PrefixMatch Find(std::string_view salt, std::span<const int32_t> prompt);

  // Remembers the prompt and says where snapshots of it are worth taking, ascending and beyond `cached`: where it
  // leaves a path that was seen before (others will too), and its end.
  std::vector<int64_t> Plan(std::string_view salt, std::span<const int32_t> prompt, int64_t cached);

  // Holds the snapshot (its tokens say where), unless it is larger than the budget; evicts until all fits.
  void Insert(std::string_view salt, const std::shared_ptr<const Snapshot>& snapshot);

  // The key's snapshot cannot be had any more.
  void Forget(const std::string& key);
  // Keys whose snapshots nobody will ask for any more, since the last call.
  std::vector<std::string> TakeAbandoned();
  // All keys in tiers below; they are abandoned with this.
  std::vector<std::string> AbandonAll();

  struct Totals {
    int64_t snapshots = 0;
    int64_t bytes = 0;
    int64_t evictions = 0;  // that went nowhere
    int64_t spilled = 0;    // that are in a tier below
    int64_t spilled_bytes = 0;
    int64_t tokens = 0;  // remembered, as max_tokens counts them
  };
  Totals totals() const;

 private:
  struct Node;
  struct Place;
  struct Source {
    Node* holder = nullptr;  // of the snapshot; null: there is none
    int64_t position = 0;    // to start from
  };

  // REQUIRES: mu_ held, for all below.
  Place Descend(Node* root, std::span<const int32_t> tokens) const;
  Source FindSource(Node* root, const Place& place, std::span<const int32_t> prompt) const;
  Node* Grow(std::string_view salt, std::span<const int32_t> tokens);
  void EvictTo(int64_t bytes);
  void ForgetPaths();
  void Drop(Node* node);
  void Spill(Node* node);
  void Abandon(Node* node);
  void LoseLower(Node* node);
  // A snapshot of a longer path through `below` that is exact at `position`; null: none.
  static Node* Beyond(Node* below, int64_t position);
  static void UpdateExactFrom(Node* node);
  double FlopsSaved(const Node& node) const;

  const PrefixIndexOptions options_;
  mutable std::mutex mu_;
  std::map<std::string, std::unique_ptr<Node>, std::less<>> roots_;  // by salt
  std::vector<Node*> held_;                                          // those with a snapshot
  std::map<std::string, Node*> lower_;                               // those with one in a tier below, by key
  std::vector<std::string> abandoned_;
  int64_t clock_ = 0;  // counts uses
  Totals totals_;
};

}  // namespace statehouse
