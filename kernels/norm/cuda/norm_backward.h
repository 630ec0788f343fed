// The gradients of LayerNorm and RMSNorm of the residual stream on the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

namespace statehouse::kernels {

// For y = norm(x) of CudaNorm() without `rows`. The gradient of what goes round the norm is added on the way:
// dx = dresidual + dnorm. Sums in float32, in an order that depends on the shape alone. Device memory.
struct CudaNormBackwardArgs {
  const float* x = nullptr;  // [num_rows, size], the norm's input (with its bias, as CudaNorm() leaves it)
  const void* dy = nullptr;  // [num_rows, size], float32 or bf16
  bool dy_is_bf16 = false;
  const float* weight = nullptr;     // [size]
  const float* dresidual = nullptr;  // [num_rows, size] or null; may be dx
  float* dx = nullptr;               // [num_rows, size]
  float* dweight = nullptr;          // [size]
  float* dbias = nullptr;            // [size]; null where there is no bias
  bool accumulates = false;          // dweight and dbias are added to what they hold
  void* workspace = nullptr;         // CudaNormBackwardWorkspace() bytes
  int64_t num_rows = 0;
  int64_t size = 0;  // 1 … 16384
  float epsilon = 1e-5f;
  bool is_rms = false;
};
size_t CudaNormBackwardWorkspace(int64_t num_rows, int64_t size);
// INVALID_ARGUMENT names a null pointer, UNIMPLEMENTED a size beyond 16384.
absl::Status CudaNormBackward(const CudaNormBackwardArgs& args, cudaStream_t stream);

}  // namespace statehouse::kernels
