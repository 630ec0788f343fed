// LayerNorm and RMSNorm over rows. Sums run in 16 fixed lanes that are added in a fixed tree: same bits on every
// machine.
#pragma once

#include <cstdint>

#include "kernels/parallel/thread_pool.h"

namespace statehouse::kernels {

// y = (x - mean) / sqrt(var + epsilon) * weight + bias.  x, y [num_rows, size]; may alias; weight, bias [size]; bias
// may be null.
struct NormArgs {
  const float* x = nullptr;
  float* y = nullptr;
  const float* weight = nullptr;
  const float* bias = nullptr;
  int64_t num_rows = 0;
  int64_t size = 0;
  float epsilon = 1e-5f;
};
void LayerNorm(const NormArgs& args, ThreadPool& pool);
// y = x / sqrt(mean(x²) + epsilon) * weight. bias must be null. Per-head norms pass num_rows = rows·heads, size = d.
void RmsNorm(const NormArgs& args, ThreadPool& pool);

void LayerNormRef(const NormArgs& args);
void RmsNormRef(const NormArgs& args);

}  // namespace statehouse::kernels
