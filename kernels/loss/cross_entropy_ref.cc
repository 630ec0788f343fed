#include <algorithm>
#include <cmath>

#include "kernels/loss/cross_entropy.h"

namespace statehouse::kernels {

CrossEntropy CrossEntropyRef(const std::vector<double>& logits, int64_t target, double weight) {
  CrossEntropy out{0, std::vector<double>(logits.size())};
  if (target < 0 || target >= static_cast<int64_t>(logits.size())) return out;
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double x : logits) sum += std::exp(x - top);
  out.loss = weight * (std::log(sum) - (logits[target] - top));
  for (size_t i = 0; i < logits.size(); ++i) out.dlogits[i] = weight * std::exp(logits[i] - top) / sum;
  out.dlogits[target] -= weight;
  return out;
}

}  // namespace statehouse::kernels
