#include "engine/sampling/logprobs.h"

#include <algorithm>

#include "engine/sampling/weight.h"
#include "kernels/math/scalar_math.h"

namespace statehouse {

double LogSumExp(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += Weight(logit - largest);
  return largest + kernels::Log(sum);
}

int32_t TopLogprobs(std::span<const float> logits, double log_sum_exp, std::span<TokenLogprob> top) {
  // `top` is kept sorted, with raw logits in its logprob fields; almost every id fails the first comparison.
  const int32_t wanted = static_cast<int32_t>(top.size());
  int32_t count = 0;
  for (size_t id = 0; id < logits.size() && wanted > 0; ++id) {
    const float logit = logits[id];
    if (count == wanted && !(logit > top[count - 1].logprob)) continue;
    int32_t place = count < wanted ? count++ : count - 1;
    for (; place > 0 && logit > top[place - 1].logprob; --place) top[place] = top[place - 1];
    top[place] = {static_cast<int32_t>(id), logit};
  }
  for (TokenLogprob& entry : top.first(count)) entry.logprob = LogprobOf(entry.logprob, log_sum_exp);
  return count;
}

}  // namespace statehouse
