// The MLP's element-wise functions on the GPU, with the bias of the product before.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"

namespace statehouse::kernels {

struct CudaActivationArgs {
  const void* x = nullptr;      // gelu: [num_rows, size]; silu · up: [num_rows, 2 size], gate then up; float32 or bf16
  const float* bias = nullptr;  // [size], gelu only, or null
  void* y = nullptr;            // [num_rows, size], of x's type; may be x itself for gelu
  bool is_bf16 = false;
  int64_t num_rows = 0;
  int64_t size = 0;  // a multiple of 4
};
// y = gelu(x + bias), tanh form.
absl::Status CudaGeluTanh(const CudaActivationArgs& args, cudaStream_t stream);
// y = silu(gate) · up.
absl::Status CudaSiluMul(const CudaActivationArgs& args, cudaStream_t stream);

}  // namespace statehouse::kernels
