// The gradients of the MLP's element-wise functions on the GPU. The bias's is what CudaBiasBackward() makes of dx.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"

namespace statehouse::kernels {

// x and bias are the forward pass's (activation.h). Device memory; all tensors of one type.
struct CudaActivationBackwardArgs {
  const void* x = nullptr;      // gelu: [num_rows, size]; silu · up: [num_rows, 2 size], gate then up; float32 or bf16
  const float* bias = nullptr;  // [size], gelu only, or null
  const void* dy = nullptr;     // [num_rows, size]
  void* dx = nullptr;           // as x; may be x itself
  bool is_bf16 = false;
  int64_t num_rows = 0;
  int64_t size = 0;
};
// INVALID_ARGUMENT names a null pointer.
absl::Status CudaGeluTanhBackward(const CudaActivationBackwardArgs& args, cudaStream_t stream);
absl::Status CudaSiluMulBackward(const CudaActivationBackwardArgs& args, cudaStream_t stream);

}  // namespace statehouse::kernels
