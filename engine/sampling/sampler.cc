#include "engine/sampling/sampler.h"

#include <algorithm>
#include <limits>

namespace statehouse {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// The largest logit, lowest id on a tie; -1 if none is above -infinity. NaN never wins.
int32_t Argmax(std::span<const float> logits) {
  float best = kMinusInfinity;
  int32_t best_id = -1;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] > best) {
      best = logits[id];
      best_id = static_cast<int32_t>(id);
    }
  }
  return best_id;
}

void SortUnique(std::vector<int32_t>* ids) {
  std::sort(ids->begin(), ids->end());
  ids->erase(std::unique(ids->begin(), ids->end()), ids->end());
}

}  // namespace

SamplingPlan::SamplingPlan(const SamplingParams& sampling, int64_t vocab_size) : params(sampling) {
  SortUnique(&params.banned_token_ids);
  allowed = params.allowed_token_ids;
  SortUnique(&allowed);
  if (static_cast<int64_t>(allowed.size()) == vocab_size) allowed.clear();
  // A temperature too small to divide by means the same as 0.
  temperature = static_cast<float>(params.temperature);
  if (temperature < std::numeric_limits<float>::min()) temperature = 0;
  has_penalties = params.repetition_penalty != 1.0 || params.presence_penalty != 0.0 || params.frequency_penalty != 0.0;
  edits_logits = has_penalties || !allowed.empty() || !params.logit_bias.empty() || !params.banned_token_ids.empty() ||
                 params.mask != nullptr;
  has_filters = (params.top_k > 0 && params.top_k < vocab_size) || params.top_p < 1.0 || params.min_p > 0.0 ||
                params.typical_p < 1.0;
}

Sampler::Sampler(int64_t vocab_size) : z_(vocab_size), candidates_(vocab_size), scratch_(vocab_size) {}

int64_t Sampler::bytes() const {
  return static_cast<int64_t>(z_.size() * (sizeof(float) + sizeof(Candidate) + sizeof(Ranked)));
}

void Sampler::Prepare(const SamplingPlan& plan, const ChoiceContext& context, std::span<const float> logits) {
  const bool greedy = plan.temperature == 0;
  if (greedy && !plan.edits_logits && context.forbidden.empty()) {
    best_ = Argmax(logits);
    return;
  }
  Edit(plan, context, logits);
  best_ = Argmax(z_);
  if (greedy || best_ < 0) return;
  // From the largest logit down, so that no temperature can overflow: the best has z = 0.
  const float largest = z_[best_];
  for (float& z : z_) z = z == largest ? 0.0f : (z - largest) / plan.temperature;
  if (plan.has_filters) Filter(plan.params);
}

int32_t Sampler::Draw(const SamplingPlan& plan, const ChoiceKey& key) {
  if (plan.temperature == 0 || best_ < 0) return best_;
  return plan.has_filters ? ArgmaxWithNoise(key, kept_) : ArgmaxWithNoise(key, std::span<const float>(z_));
}

void Sampler::Edit(const SamplingPlan& plan, const ChoiceContext& context, std::span<const float> logits) {
  const SamplingParams& params = plan.params;
  std::copy(logits.begin(), logits.end(), z_.begin());
  for (const auto& [id, bias] : params.logit_bias) z_[id] += bias;
  if (!plan.allowed.empty()) {
    for (size_t idx = 0; idx < plan.allowed.size(); ++idx) candidates_[idx].value = z_[plan.allowed[idx]];
    std::fill(z_.begin(), z_.end(), kMinusInfinity);
    for (size_t idx = 0; idx < plan.allowed.size(); ++idx) z_[plan.allowed[idx]] = candidates_[idx].value;
  }
  for (const int32_t id : params.banned_token_ids) z_[id] = kMinusInfinity;
  for (const int32_t id : context.forbidden) z_[id] = kMinusInfinity;
  if (params.mask != nullptr) params.mask->Apply(context.output, z_);
  if (plan.has_penalties) Penalize(params, *context.counts);
}

void Sampler::Penalize(const SamplingParams& params, const TokenCounts& counts) {
  const float repetition = static_cast<float>(params.repetition_penalty);
  const float presence = static_cast<float>(params.presence_penalty);
  const float frequency = static_cast<float>(params.frequency_penalty);
  for (size_t idx = 0; idx < z_.size(); ++idx) {
    const int32_t id = static_cast<int32_t>(idx);
    if (!counts.seen(id)) continue;
    float& z = z_[idx];
    z = z > 0 ? z / repetition : z * repetition;
    const uint32_t generated = counts.generated(id);
    if (generated > 0) z -= presence + frequency * static_cast<float>(generated);
  }
}

void Sampler::Filter(const SamplingParams& params) {
  size_t count = 0;
  for (size_t id = 0; id < z_.size(); ++id) {
    if (z_[id] > kMinusInfinity) candidates_[count++] = {z_[id], static_cast<int32_t>(id)};
  }
  CandidateList list = std::span<Candidate>(candidates_).first(count);
  if (params.top_k > 0) KeepTopK(params.top_k, &list);
  if (params.top_p < 1.0) KeepTopP(params.top_p, &scratch_, &list);
  if (params.min_p > 0.0) KeepMinP(params.min_p, &list);
  if (params.typical_p < 1.0) KeepTypicalP(params.typical_p, &scratch_, &list);
  kept_ = list;
}

}  // namespace statehouse
