// Cross-entropy of next-token logits in double, and its gradient: what the GPU's are held against. Thread-safety: pure.
#pragma once

#include <cstdint>
#include <vector>

namespace statehouse::kernels {

struct CrossEntropy {
  double loss;                  // weight · -log softmax(logits)[target]
  std::vector<double> dlogits;  // of it
};
// A target outside the vocabulary trains nothing: loss and gradient are 0.
CrossEntropy CrossEntropyRef(const std::vector<double>& logits, int64_t target, double weight);

}  // namespace statehouse::kernels
