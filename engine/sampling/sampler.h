// Chooses the next token from one row of logits: edits (bias, allowed, banned, mask, penalties), temperature, filters,
// Gumbel-max.
//
// The result is a pure function of (logits, plan, counts, key); docs/sampling.md is the recipe. Nothing here allocates
// after construction. Thread-safety: one Sampler per thread; a SamplingPlan is immutable once made.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"
#include "engine/sampling/filters.h"
#include "engine/sampling/gumbel.h"
#include "engine/sampling/token_counts.h"

namespace statehouse {

// SamplingParams, prepared once per request so that a choice looks nothing up.
struct SamplingPlan {
  SamplingPlan(const SamplingParams& params, int64_t vocab_size);

  SamplingParams params;
  std::vector<int32_t> allowed;  // sorted, unique; empty: all
  float temperature = 1;         // 0: greedy
  bool has_penalties = false;
  bool edits_logits = false;  // anything that changes a logit before the temperature
  bool has_filters = false;
};

// What one choice may look at beside the logits.
struct ChoiceContext {
  ChoiceKey key;
  const TokenCounts* counts = nullptr;  // REQUIRES: not null if the plan has penalties
  std::span<const int32_t> output;      // generated ids so far; only filled where the plan has a mask
  std::span<const int32_t> forbidden;   // beside the plan's: end tokens, before min_tokens
};

class Sampler {
 public:
  explicit Sampler(int64_t vocab_size);

  // The chosen id, or -1 where nothing may be chosen. `logits` [vocab_size] is not changed.
  int32_t Choose(const SamplingPlan& plan, const ChoiceContext& context, std::span<const float> logits) {
    Prepare(plan, context, logits);
    return Draw(plan, context.key);
  }

  // Choose() in two parts, for choices that differ in their keys only, such as the first tokens of n outputs: what may
  // be chosen is worked out once. `context.key` is not used. The logits must stay as they are until the last Draw().
  void Prepare(const SamplingPlan& plan, const ChoiceContext& context, std::span<const float> logits);
  // REQUIRES: Prepare() with the same plan came before.
  int32_t Draw(const SamplingPlan& plan, const ChoiceKey& key);

  int64_t bytes() const;

 private:
  // Copies the logits to z_ and edits them there.
  void Edit(const SamplingPlan& plan, const ChoiceContext& context, std::span<const float> logits);
  void Penalize(const SamplingParams& params, const TokenCounts& counts);
  void Filter(const SamplingParams& params);

  std::vector<float> z_;               // [vocab]
  std::vector<Candidate> candidates_;  // [vocab]
  FilterScratch scratch_;
  // What Prepare() left.
  int32_t best_ = -1;   // greedy: the choice; else -1 where there is none
  CandidateList kept_;  // with filters: a part of candidates_
};

}  // namespace statehouse
