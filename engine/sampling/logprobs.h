// Log probabilities of the model itself: log-softmax of the raw logits, before bias, penalties and temperature.
// Thread-safety: pure functions; they allocate nothing.
#pragma once

#include <cstdint>
#include <span>

#include "engine/event_stream.h"  // TokenLogprob

namespace statehouse {

// log(sum of e^logit), summed in id order in double.
double LogSumExp(std::span<const float> logits);
inline float LogprobOf(float logit, double log_sum_exp) { return static_cast<float>(logit - log_sum_exp); }
// The top.size() likeliest tokens, value descending, id ascending among equals. Returns how many there were (at most
// the vocabulary).
int32_t TopLogprobs(std::span<const float> logits, double log_sum_exp, std::span<TokenLogprob> top);

}  // namespace statehouse
