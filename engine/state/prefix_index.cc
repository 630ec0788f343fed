#include "engine/state/prefix_index.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace statehouse {
namespace {

constexpr int64_t kNothing = std::numeric_limits<int64_t>::max();
// What a node takes beside the tokens of its edge, in tokens' 4 bytes: without it, many short prompts or salts would
// take memory that nobody counts.
constexpr int64_t kNodeTokens = 48;
// More than needed goes from the tier below at a time, since finding out what may go looks at everything there.
constexpr int64_t kRoomShare = 20;

}  // namespace

// The end of an edge. The path from the root spells the first `position` tokens.
struct PrefixIndex::Node {
  Node* parent = nullptr;
  std::vector<int32_t> edge;  // from the parent
  int64_t position = 0;
  std::map<int32_t, std::unique_ptr<Node>> children;  // by the first token of their edge
  std::shared_ptr<const Snapshot> snapshot;
  std::string lower;                  // key of a copy in a tier below; empty: none
  int64_t lower_bytes = 0;            // of it
  bool has_logits = false;            // of snapshot, else of the copy
  int64_t own_exact_from = kNothing;  // Snapshot::exact_from() of either
  int64_t exact_from = kNothing;      // the least of this node and all below
  bool was_evicted = false;           // had a snapshot
  int64_t last_use = 0;

  bool Holds() const { return snapshot != nullptr || !lower.empty(); }
};

// How far a prompt goes along the tree.
struct PrefixIndex::Place {
  Node* node = nullptr;  // the last one reached in full
  int64_t matched = 0;   // tokens, on the edge below it included
  Node* edge = nullptr;  // end of that edge, if some of it matched
};

const char* MissReasonName(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return "none";
    case MissReason::kNothing:
      return "nothing";
    case MissReason::kDiverged:
      return "diverged";
    case MissReason::kNoSnapshot:
      return "no_snapshot";
    case MissReason::kEvicted:
      return "evicted";
    case MissReason::kRefused:
      return "refused";
    case MissReason::kTier:
      return "tier";
    case MissReason::kBypassed:
      return "bypassed";
  }
  return "unknown";
}

PrefixIndex::PrefixIndex(const PrefixIndexOptions& options) : options_(options) {}
PrefixIndex::~PrefixIndex() = default;

PrefixIndex::Place PrefixIndex::Descend(Node* root, std::span<const int32_t> tokens) const {
  Place place = {.node = root};
  while (place.matched < static_cast<int64_t>(tokens.size())) {
    const auto child = place.node->children.find(tokens[static_cast<size_t>(place.matched)]);
    if (child == place.node->children.end()) break;
    const std::vector<int32_t>& edge = child->second->edge;
    const auto rest = tokens.subspan(static_cast<size_t>(place.matched));
    const auto differ = std::mismatch(edge.begin(), edge.end(), rest.begin(), rest.end());
    place.matched += differ.first - edge.begin();
    if (differ.first != edge.end()) {
      place.edge = child->second.get();
      break;
    }
    place.node = child->second.get();
  }
  return place;
}

PrefixMatch PrefixIndex::Find(std::string_view salt, std::span<const int32_t> prompt) {
  std::lock_guard<std::mutex> lock(mu_);
  PrefixMatch match;
  const auto root = roots_.find(salt);
  if (root == roots_.end()) return match;
  const Place place = Descend(root->second.get(), prompt);
  match.matched = place.matched;
  const int64_t size = static_cast<int64_t>(prompt.size());
  const Source source = FindSource(root->second.get(), place, prompt);
  int64_t found = 0;
  if (source.holder != nullptr) {
    found = source.position;
    source.holder->last_use = ++clock_;
    match.position = found;
    const auto& snapshot = source.holder->snapshot;
    if (snapshot == nullptr) {
      match.lower = source.holder->lower;
    } else {
      match.snapshot = snapshot->position() == found ? snapshot : snapshot->TakenBackTo(found);
    }
  }
  bool was_evicted = false;
  for (const Node* node = place.node; node != nullptr && node->position > found; node = node->parent) {
    was_evicted = was_evicted || node->was_evicted;
  }
  if (found == size) {
    match.reason = MissReason::kNone;
  } else if (was_evicted) {
    match.reason = MissReason::kEvicted;
  } else if (found < place.matched) {
    match.reason = MissReason::kNoSnapshot;
  } else {
    match.reason = place.matched == 0 ? MissReason::kNothing : MissReason::kDiverged;
  }
  return match;
}

// The deepest position of the prompt that some snapshot is at, or can be taken back to.
PrefixIndex::Source PrefixIndex::FindSource(Node* root, const Place& place, std::span<const int32_t> prompt) const {
  const int64_t size = static_cast<int64_t>(prompt.size());
  const Node& end = *place.node;
  if (end.position == size && end.Holds() && end.has_logits) return {place.node, size};
  // Without logits the last token is computed again, on whatever path that is the same so far.
  const int64_t nearest = std::min(place.matched, size - 1);
  const Place there = Descend(root, prompt.first(static_cast<size_t>(nearest)));
  if (there.edge != nullptr && nearest > 0) {
    if (Node* const holder = Beyond(there.edge, nearest); holder != nullptr) return {holder, nearest};
  }
  for (Node* node = there.node; node->parent != nullptr; node = node->parent) {
    if (node->Holds()) return {node, node->position};
    if (Node* const holder = Beyond(node, node->position); holder != nullptr) return {holder, node->position};
  }
  return {};
}

PrefixIndex::Node* PrefixIndex::Beyond(Node* below, int64_t position) {
  if (below->exact_from > position) return nullptr;
  while (below->own_exact_from > position) {
    for (const auto& [token, child] : below->children) {
      if (child->exact_from > position) continue;
      below = child.get();
      break;
    }
  }
  return below;
}

// After a change at `node`, for it and all above.
void PrefixIndex::UpdateExactFrom(Node* node) {
  for (; node != nullptr; node = node->parent) {
    int64_t least = node->own_exact_from;
    for (const auto& [token, child] : node->children) least = std::min(least, child->exact_from);
    if (least == node->exact_from) return;
    node->exact_from = least;
  }
}

// The node at exactly these tokens; edges are split where they must be.
PrefixIndex::Node* PrefixIndex::Grow(std::string_view salt, std::span<const int32_t> tokens) {
  std::unique_ptr<Node>& root = roots_[std::string(salt)];
  if (root == nullptr) {
    root = std::make_unique<Node>();
    totals_.tokens += kNodeTokens;
  }
  const Place place = Descend(root.get(), tokens);
  Node* node = place.node;
  if (place.edge != nullptr) {
    std::unique_ptr<Node>& slot = node->children[tokens[static_cast<size_t>(node->position)]];
    auto middle = std::make_unique<Node>();
    const auto cut = slot->edge.begin() + (place.matched - node->position);
    middle->parent = node;
    middle->position = place.matched;
    middle->exact_from = slot->exact_from;
    totals_.tokens += kNodeTokens;
    middle->edge.assign(slot->edge.begin(), cut);
    slot->edge.erase(slot->edge.begin(), cut);
    slot->parent = middle.get();
    const int32_t first = slot->edge.front();
    middle->children[first] = std::move(slot);
    slot = std::move(middle);
    node = slot.get();
  }
  if (place.matched < static_cast<int64_t>(tokens.size())) {
    auto leaf = std::make_unique<Node>();
    leaf->parent = node;
    leaf->position = static_cast<int64_t>(tokens.size());
    leaf->edge.assign(tokens.begin() + place.matched, tokens.end());
    totals_.tokens += kNodeTokens + static_cast<int64_t>(leaf->edge.size());
    Node* const made = leaf.get();
    node->children[leaf->edge.front()] = std::move(leaf);
    node = made;
  }
  return node;
}

std::vector<int64_t> PrefixIndex::Plan(std::string_view salt, std::span<const int32_t> prompt, int64_t cached) {
  std::lock_guard<std::mutex> lock(mu_);
  std::vector<int64_t> positions;
  if (prompt.empty()) return positions;
  const auto root = roots_.find(salt);
  const int64_t branch = root == roots_.end() ? 0 : Descend(root->second.get(), prompt).matched;
  const int64_t size = static_cast<int64_t>(prompt.size());
  if (branch > cached && branch < size) positions.push_back(branch);
  if (size > cached) positions.push_back(size);
  Grow(salt, prompt)->last_use = ++clock_;
  if (totals_.tokens > options_.max_tokens) ForgetPaths();
  return positions;
}

void PrefixIndex::Insert(std::string_view salt, const std::shared_ptr<const Snapshot>& snapshot) {
  std::lock_guard<std::mutex> lock(mu_);
  if (snapshot->bytes() > options_.budget_bytes) return;
  Node* const node = Grow(salt, snapshot->tokens());
  node->last_use = ++clock_;
  if (node->snapshot != nullptr) {
    // The same state twice; one that has logits serves more.
    if (node->snapshot->logits().empty() && !snapshot->logits().empty()) {
      totals_.bytes += snapshot->bytes() - node->snapshot->bytes();
      node->snapshot = snapshot;
      node->has_logits = true;
    }
    return;
  }
  EvictTo(options_.budget_bytes - snapshot->bytes());
  // What lies below without logits is less than this one.
  if (!node->lower.empty() && !node->has_logits && !snapshot->logits().empty()) Abandon(node);
  node->snapshot = snapshot;
  node->has_logits = !snapshot->logits().empty();
  node->was_evicted = false;
  node->own_exact_from = snapshot->exact_from();
  UpdateExactFrom(node);
  held_.push_back(node);
  totals_.bytes += snapshot->bytes();
  ++totals_.snapshots;
  if (totals_.tokens > options_.max_tokens) ForgetPaths();
}

// What is computed again without it: from the next snapshot above.
double PrefixIndex::FlopsSaved(const Node& node) const {
  const Node* above = node.parent;
  while (above != nullptr && above->snapshot == nullptr) above = above->parent;
  const int64_t from = above == nullptr ? 0 : above->position;
  if (!options_.flops) return static_cast<double>(node.position - from);
  return options_.flops(node.position) - options_.flops(from);
}

void PrefixIndex::EvictTo(int64_t bytes) {
  while (totals_.bytes > bytes && !held_.empty()) {
    double most_efficient = std::numeric_limits<double>::min();
    int64_t oldest = clock_;
    std::vector<double> efficiency(held_.size());
    for (size_t idx = 0; idx < held_.size(); ++idx) {
      efficiency[idx] = FlopsSaved(*held_[idx]) / static_cast<double>(held_[idx]->snapshot->bytes());
      most_efficient = std::max(most_efficient, efficiency[idx]);
      oldest = std::min(oldest, held_[idx]->last_use);
    }
    const double span = static_cast<double>(std::max<int64_t>(1, clock_ - oldest));
    size_t worst = 0;
    double worst_score = std::numeric_limits<double>::max();
    for (size_t idx = 0; idx < held_.size(); ++idx) {
      const double recency = static_cast<double>(held_[idx]->last_use - oldest) / span;
      const double score = recency + options_.efficiency_weight * efficiency[idx] / most_efficient;
      if (score < worst_score) {
        worst_score = score;
        worst = idx;
      }
    }
    Node* const node = held_[worst];
    held_.erase(held_.begin() + static_cast<ptrdiff_t>(worst));
    Drop(node);
  }
}

void PrefixIndex::Drop(Node* node) {
  totals_.bytes -= node->snapshot->bytes();
  --totals_.snapshots;
  if (node->lower.empty() && options_.spill) Spill(node);
  node->snapshot = nullptr;
  if (!node->lower.empty()) return;
  ++totals_.evictions;
  node->was_evicted = true;
  node->own_exact_from = kNothing;
  UpdateExactFrom(node);
}

void PrefixIndex::Spill(Node* node) {
  const int64_t bytes = node->snapshot->bytes();
  const int64_t most = options_.lower_budget_bytes;
  if (bytes > most) return;
  if (totals_.spilled_bytes + bytes > most) {
    std::vector<Node*> leaving;
    for (const auto& [key, lower] : lower_) leaving.push_back(lower);
    std::sort(leaving.begin(), leaving.end(), [](const Node* a, const Node* b) { return a->last_use < b->last_use; });
    const int64_t enough = std::max<int64_t>(0, std::min(most - bytes, most - most / kRoomShare));
    for (size_t idx = 0; idx < leaving.size() && totals_.spilled_bytes > enough; ++idx) LoseLower(leaving[idx]);
  }
  node->lower = options_.spill(node->snapshot);
  if (node->lower.empty()) return;
  lower_[node->lower] = node;
  node->lower_bytes = bytes;
  totals_.spilled_bytes += bytes;
  totals_.spilled = static_cast<int64_t>(lower_.size());
}

// Its copy in a tier below is no longer of use.
void PrefixIndex::Abandon(Node* node) {
  abandoned_.push_back(node->lower);
  lower_.erase(node->lower);
  node->lower.clear();
  totals_.spilled_bytes -= node->lower_bytes;
  totals_.spilled = static_cast<int64_t>(lower_.size());
}

void PrefixIndex::Forget(const std::string& key) {
  std::lock_guard<std::mutex> lock(mu_);
  if (const auto found = lower_.find(key); found != lower_.end()) LoseLower(found->second);
}

// Its copy in a tier below is gone; what is in memory stays.
void PrefixIndex::LoseLower(Node* node) {
  Abandon(node);
  if (node->snapshot != nullptr) return;
  ++totals_.evictions;
  node->was_evicted = true;
  node->own_exact_from = kNothing;
  UpdateExactFrom(node);
}

std::vector<std::string> PrefixIndex::TakeAbandoned() {
  std::lock_guard<std::mutex> lock(mu_);
  return std::exchange(abandoned_, {});
}

std::vector<std::string> PrefixIndex::AbandonAll() {
  std::lock_guard<std::mutex> lock(mu_);
  std::vector<std::string> keys = std::exchange(abandoned_, {});
  for (const auto& [key, node] : lower_) {
    keys.push_back(key);
    node->lower.clear();
    if (node->snapshot != nullptr) continue;
    node->own_exact_from = kNothing;
    UpdateExactFrom(node);
  }
  lower_.clear();
  totals_.spilled = totals_.spilled_bytes = 0;
  return keys;
}

// Takes off leaves that hold nothing here, the longest unused first, until a quarter of the room is free again. What
// tiers below hold for them comes last.
void PrefixIndex::ForgetPaths() {
  const int64_t enough = options_.max_tokens - options_.max_tokens / 4;
  for (bool progress = true; progress && totals_.tokens > enough;) {
    std::vector<Node*> leaves;
    std::vector<Node*> walk;
    for (auto& [salt, root] : roots_) walk.push_back(root.get());
    while (!walk.empty()) {
      Node* const node = walk.back();
      walk.pop_back();
      if (node->children.empty() && node->snapshot == nullptr && node->parent != nullptr) leaves.push_back(node);
      for (auto& [token, child] : node->children) walk.push_back(child.get());
    }
    std::sort(leaves.begin(), leaves.end(), [](const Node* a, const Node* b) {
      return std::pair(!a->lower.empty(), a->last_use) < std::pair(!b->lower.empty(), b->last_use);
    });
    progress = !leaves.empty();
    for (Node* leaf : leaves) {
      if (totals_.tokens <= enough) break;
      if (!leaf->lower.empty()) LoseLower(leaf);
      totals_.tokens -= kNodeTokens + static_cast<int64_t>(leaf->edge.size());
      leaf->parent->children.erase(leaf->edge.front());
    }
  }
  for (auto root = roots_.begin(); root != roots_.end();) {
    const bool is_bare = root->second->children.empty();
    if (is_bare) totals_.tokens -= kNodeTokens;
    root = is_bare ? roots_.erase(root) : std::next(root);
  }
}

PrefixIndex::Totals PrefixIndex::totals() const {
  std::lock_guard<std::mutex> lock(mu_);
  return totals_;
}

}  // namespace statehouse
