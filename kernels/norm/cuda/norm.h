// LayerNorm and RMSNorm of the residual stream on the GPU, with what else touches the stream at that point: the bias of
// the product before, and the choice of rows. A row's bits do not depend on other rows.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"

namespace statehouse::kernels {

// y[i] = norm(x[r] + x_bias) with r = rows[i], or i without `rows`. The sum is written back to x where there is a bias
// and no `rows`. Statistics in float32, in two passes over the row (mean, then squares about it).
struct CudaNormArgs {
  float* x = nullptr;             // [.., size]
  const float* x_bias = nullptr;  // [size] or null
  const int32_t* rows = nullptr;  // [num_rows] or null
  void* y = nullptr;              // [num_rows, size], float32 or bf16
  bool y_is_bf16 = false;
  const float* weight = nullptr;  // [size]
  const float* bias = nullptr;    // [size] or null
  int64_t num_rows = 0;
  int64_t size = 0;  // 1 … 16384
  float epsilon = 1e-5f;
  bool is_rms = false;
};
absl::Status CudaNorm(const CudaNormArgs& args, cudaStream_t stream);

}  // namespace statehouse::kernels
