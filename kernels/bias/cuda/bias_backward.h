// The gradient of a bias on the GPU: what its product's gradient sums to over rows.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

namespace statehouse::kernels {

// dbias = Σ_row dy[row], in float32, in an order that depends on num_rows alone. Device memory.
struct CudaBiasBackwardArgs {
  const void* dy = nullptr;  // [num_rows, size], float32 or bf16
  bool is_bf16 = false;
  float* dbias = nullptr;     // [size]
  bool accumulates = false;   // added to what dbias holds
  void* workspace = nullptr;  // CudaBiasBackwardWorkspace() bytes
  int64_t num_rows = 0;
  int64_t size = 0;
};
size_t CudaBiasBackwardWorkspace(int64_t num_rows, int64_t size);
// INVALID_ARGUMENT names a null pointer. Without rows dbias is zero, or what it was.
absl::Status CudaBiasBackward(const CudaBiasBackwardArgs& args, cudaStream_t stream);

}  // namespace statehouse::kernels
