#include "engine/state/prefix_cache.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/admission.h"
#include "models/sizing.h"

namespace statehouse {
namespace {

// A snapshot that saves fewer tokens than this beyond the one above it is not taken on the way.
constexpr int64_t kLeastTokensSaved = 16;
// Along a long prompt, positions grow by this factor: whatever part of it comes again, a quarter of that is saved.
constexpr int64_t kSpacing = 4;

// Arithmetic of computing the first `position` tokens. Below the switch-over a row reads the rows before it.
std::function<double(int64_t)> FlopsOf(const Model& model) {
  const ModelConfig& config = model.config();
  const int64_t switch_over = model.retention().shape().switch_over;
  const double linear = LinearFlopsPerToken(config);
  const double state = model.retention().has_state() ? RetentionFlopsPerToken(config) : 0;
  const double per_pair = 4.0 * config.head_dim * config.heads_q * config.num_layers;
  return [=](int64_t position) {
    const double rows = static_cast<double>(std::min(position, switch_over));
    const double beyond = static_cast<double>(position) - rows;
    return linear * static_cast<double>(position) + per_pair * rows * rows / 2 + state * beyond;
  };
}

const char* PlaceName(Tier tier) {
  switch (tier) {
    case Tier::kNone:
      return "nowhere";
    case Tier::kDevice:
      return "a slot";
    case Tier::kHost:
      return "host memory";
    case Tier::kDisk:
      return "disk";
    case Tier::kStore:
      return "the shared store";
  }
  return "an unknown place";
}

// The rest of the sentence; empty: nothing more is known.
std::string WhyNotMore(const PrefixReport& report) {
  const std::string matched = absl::StrCat("earlier prompts go as far as token ", report.matched_tokens);
  switch (report.miss) {
    case MissReason::kNone:
    case MissReason::kBypassed:
      return "";
    case MissReason::kNothing:
      return "no earlier prompt begins like this one";
    case MissReason::kDiverged:
      return absl::StrCat("at token ", report.matched_tokens, " it parts from every earlier prompt");
    case MissReason::kNoSnapshot:
      return absl::StrCat(matched, ", but no snapshot was taken there");
    case MissReason::kEvicted:
      return absl::StrCat(matched, ", but a snapshot there had to make room");
    case MissReason::kRefused:
      return absl::StrCat(matched, ", but the snapshot there comes from another numeric mode");
    case MissReason::kTier:
      return absl::StrCat(matched, ", but the snapshot there could not be read");
  }
  return "";
}

PrefixCacheOptions Resolved(PrefixCacheOptions options) {
  const int64_t most = std::numeric_limits<int64_t>::max() / PrefixCacheOptions::kDiskShare;
  if (options.vault == nullptr) {
    options.disk_bytes = 0;
  } else {
    const int64_t share = PrefixCacheOptions::kDiskShare * std::min(options.memory_bytes, most);
    options.disk_bytes = options.disk_bytes < 0 ? share : std::min(options.disk_bytes, share);
  }
  return options;
}

}  // namespace

std::string PrefixReport::Explanation() const {
  if (miss == MissReason::kBypassed) return absl::StrCat("not looked up: ", why_bypassed);
  const std::string restored = cached_tokens == 0 ? absl::StrCat("restored none of ", prompt_tokens, " tokens")
                                                  : absl::StrCat("restored ", cached_tokens, " of ", prompt_tokens,
                                                                 " tokens from ", PlaceName(tier));
  const std::string why = WhyNotMore(*this);
  const std::string bits = exactness == Exactness::kExact ? "" : absl::StrCat("; continued: ", kNotBatchInvariant);
  return absl::StrCat(restored, why.empty() ? "" : "; ", why, bits);
}

PrefixCache::PrefixCache(const PrefixCacheOptions& options, const Model& model)
    : options_(Resolved(options)),
      shape_{model.retention(), model.config().num_layers},
      vocab_size_(model.config().vocab_size),
      is_batch_invariant_(model.is_batch_invariant()),
      index_({.budget_bytes = options.memory_bytes - options.memory_bytes / 3,
              .efficiency_weight = options.efficiency_weight,
              .flops = FlopsOf(model),
              .lower_budget_bytes = options_.disk_bytes,
              .spill = options.vault == nullptr
                           ? std::function<std::string(const std::shared_ptr<const Snapshot>&)>()
                           : [this](const std::shared_ptr<const Snapshot>& snapshot) { return Spill(snapshot); }}) {}

int64_t PrefixCache::LeastMemory(const Model& model) {
  const SlotShape shape{model.retention(), model.config().num_layers};
  const int64_t floats = shape.layout.UsedHeadFloats(1) * shape.num_regions() + model.config().vocab_size;
  return (4 * (floats + 1) * 3 + 1) / 2;  // two thirds of it are for what is kept
}

PrefixCache::~PrefixCache() {
  for (const std::string& key : index_.AbandonAll()) {
    SnapshotVault::Removed removed;
    // What stays behind is found by the vault's own garbage collection.
    options_.vault->Drop(key, &removed).IgnoreError();
  }
}

std::string PrefixCache::Spill(const std::shared_ptr<const Snapshot>& snapshot) {
  std::string key = SnapshotVault::NewPrefixKey();
  return options_.vault->Keep(key, snapshot, /*durable=*/true).ok() ? key : std::string();
}

void PrefixCache::DropAbandoned() {
  for (const std::string& key : index_.TakeAbandoned()) {
    options_.vault->DropLater(key);
  }
}

// No two (salt, principal, salt) run into one another.
std::string PrefixCache::KeyOf(const PrefixWish& wish) const {
  return absl::StrCat(options_.salt.size(), ":", options_.salt, wish.principal.size(), ":", std::string(wish.principal),
                      std::string(wish.salt));
}

int64_t PrefixCache::BytesAt(int64_t position) const {
  const int64_t of_region = std::min(shape_.layout.UsedHeadFloats(position), shape_.region_floats());
  const int64_t floats = of_region * shape_.num_regions() + vocab_size_;
  return 4 * (floats + position);
}

bool PrefixCache::Reserve(int64_t bytes) {
  const int64_t before = taking_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  const bool fits = before + bytes <= options_.memory_bytes / 3;
  // One may be taken however large it is, as long as it could be kept.
  const bool is_alone = before == 0 && bytes <= options_.memory_bytes - options_.memory_bytes / 3;
  if (fits || is_alone) return true;
  taking_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  not_taken_.fetch_add(1, std::memory_order_relaxed);
  return false;
}

std::vector<PrefixCache::Order> PrefixCache::PlanOrders(const PrefixWish& wish, const std::string& key,
                                                        const Request& request, int64_t cached) {
  const int64_t size = static_cast<int64_t>(request.prompt.size());
  std::vector<Order> orders;
  for (const int64_t position : wish.points) {
    if (position > cached) orders.push_back({position, true});
  }
  for (const int64_t position : index_.Plan(key, request.prompt, cached)) {
    // The prompt's end also serves a repeat of the prompt, which needs no step at all.
    if (position == size || position - cached >= kLeastTokensSaved) orders.push_back({position, position == size});
  }
  // Below the switch-over a snapshot can be taken back to any position, so one of them just there serves all.
  const kernels::RetentionShape& retention = shape_.layout.shape();
  if (shape_.layout.has_state()) {
    const int64_t first = std::max(retention.switch_over - retention.chunk, 8 * retention.chunk);
    for (int64_t position = first; position <= size - retention.chunk; position *= kSpacing) {
      if (position - cached >= kLeastTokensSaved) orders.push_back({position, false});
    }
  }
  std::sort(orders.begin(), orders.end(), [](const Order& a, const Order& b) {
    return a.position != b.position ? a.position < b.position : a.is_wanted > b.is_wanted;
  });
  const auto same = [](const Order& a, const Order& b) { return a.position == b.position; };
  orders.erase(std::unique(orders.begin(), orders.end(), same), orders.end());
  return orders;
}

std::shared_ptr<const Snapshot> PrefixCache::Restore(const std::string& key, std::span<const int32_t> prompt,
                                                     PrefixReport* report) {
  report->prompt_tokens = static_cast<int64_t>(prompt.size());
  // A snapshot that a tier below does not give is forgotten, and the next best one is looked for.
  std::optional<MissReason> failed;
  while (true) {
    const PrefixMatch match = index_.Find(key, prompt);
    report->matched_tokens = match.matched;
    report->miss = failed.value_or(match.reason);
    report->cached_tokens = match.position;
    if (match.lower.empty()) {
      report->tier = match.snapshot == nullptr ? Tier::kNone : Tier::kHost;
      return match.snapshot;
    }
    auto fetched = options_.vault->Fetch(match.lower, /*allow_other_numeric=*/false);
    if (fetched.ok()) {
      report->tier = fetched->tier;
      index_.Insert(key, fetched->snapshot);
      if (fetched->snapshot->position() == match.position) return fetched->snapshot;
      return fetched->snapshot->TakenBackTo(match.position);
    }
    if (!absl::IsNotFound(fetched.status())) {
      failed = absl::IsFailedPrecondition(fetched.status()) ? MissReason::kRefused : MissReason::kTier;
    }
    index_.Forget(match.lower);
  }
}

bool PrefixCache::IsBelowMemory(const PrefixWish& wish, std::span<const int32_t> prompt) {
  return options_.vault != nullptr && !index_.Find(KeyOf(wish), prompt).lower.empty();
}

std::unique_ptr<PrefixCache::Use> PrefixCache::Begin(const PrefixWish& wish, Request* request) {
  std::unique_ptr<Use> use(new Use(this));
  use->key_ = KeyOf(wish);
  use->prompt_ = request->prompt;
  const int64_t size = static_cast<int64_t>(request->prompt.size());
  PrefixReport& report = use->report_;
  request->from = Restore(use->key_, request->prompt, &report);
  if (request->from != nullptr && !is_batch_invariant_) report.exactness = Exactness::kContinued;
  if (report.tier != Tier::kNone) hits_[static_cast<size_t>(report.tier)].fetch_add(1, std::memory_order_relaxed);
  misses_[static_cast<size_t>(report.miss)].fetch_add(1, std::memory_order_relaxed);
  queried_tokens_.fetch_add(size, std::memory_order_relaxed);
  cached_tokens_.fetch_add(report.cached_tokens, std::memory_order_relaxed);

  std::vector<Order> orders = PlanOrders(wish, use->key_, *request, report.cached_tokens);
  if (wish.will_go_on && request->n == 1) orders.push_back({SnapshotOrder::kAtEnd, true});
  std::vector<std::shared_ptr<SnapshotDraft>> drafts(orders.size());
  for (const bool is_wanted : {true, false}) {
    for (size_t idx = 0; idx < orders.size(); ++idx) {
      if (orders[idx].is_wanted != is_wanted) continue;
      const bool at_end = orders[idx].position == SnapshotOrder::kAtEnd;
      const int64_t expected = at_end ? size + ExpectedAnswer(*request) : orders[idx].position;
      const int64_t most = at_end ? std::max(expected, size + request->stop.max_tokens) : expected;
      const int64_t bytes = BytesAt(most);
      if (!Reserve(bytes)) continue;
      use->reserved_bytes_ += bytes;
      // Without memory for it the request goes on all the same.
      auto draft = SnapshotDraft::Reserve(shape_, vocab_size_, options_.memory.get(), expected);
      if (draft.ok()) {
        drafts[idx] = *std::move(draft);
      } else {
        not_taken_.fetch_add(1, std::memory_order_relaxed);
      }
    }
  }
  for (size_t idx = 0; idx < orders.size(); ++idx) {
    if (drafts[idx] == nullptr) continue;
    use->wants_answer_ = use->wants_answer_ || orders[idx].position == SnapshotOrder::kAtEnd;
    use->drafts_.push_back(drafts[idx]);
    request->snapshots.push_back({orders[idx].position, std::move(drafts[idx])});
  }
  DropAbandoned();
  return use;
}

void PrefixCache::CountBypass() {
  misses_[static_cast<size_t>(MissReason::kBypassed)].fetch_add(1, std::memory_order_relaxed);
}

PrefixCache::Totals PrefixCache::totals() const {
  Totals totals;
  totals.kept = index_.totals();
  totals.taking_bytes = taking_bytes_.load(std::memory_order_relaxed);
  totals.queried_tokens = queried_tokens_.load(std::memory_order_relaxed);
  totals.cached_tokens = cached_tokens_.load(std::memory_order_relaxed);
  totals.not_taken = not_taken_.load(std::memory_order_relaxed);
  for (size_t idx = 0; idx < hits_.size(); ++idx) totals.hits[idx] = hits_[idx].load(std::memory_order_relaxed);
  for (size_t idx = 0; idx < misses_.size(); ++idx) totals.misses[idx] = misses_[idx].load(std::memory_order_relaxed);
  return totals;
}

PrefixCache::Use::~Use() { cache_->taking_bytes_.fetch_sub(reserved_bytes_, std::memory_order_relaxed); }

void PrefixCache::Use::Keep(std::span<const int32_t> answer) {
  std::vector<int32_t> tokens = std::move(prompt_);
  tokens.insert(tokens.end(), answer.begin(), answer.end());
  for (const std::shared_ptr<SnapshotDraft>& draft : drafts_) {
    // A request that ended early did not come to all of its positions.
    if (!draft->filled() || draft->position() > static_cast<int64_t>(tokens.size())) continue;
    std::vector<int32_t> first(tokens.begin(), tokens.begin() + draft->position());
    cache_->index_.Insert(key_, draft->Seal(std::move(first)));
  }
  drafts_.clear();
  cache_->taking_bytes_.fetch_sub(std::exchange(reserved_bytes_, 0), std::memory_order_relaxed);
  cache_->DropAbandoned();
}

}  // namespace statehouse
