// The gradient of CudaPrepareHeads() (heads.h) on the GPU: through the gate's log sigmoid, RoPE, and per-head norms.
// The bias's is what CudaBiasBackward() makes of dx.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "kernels/rope/cuda/heads.h"

namespace statehouse::kernels {

struct CudaHeadsBackwardArgs {
  CudaHeadsArgs forward;  // x: the projections as they were before CudaPrepareHeads(), which is in place; not written
  float* dx = nullptr;    // [num_rows, row_stride]: in: by q, k, v and log gates; out: by x
  float* dq_norm = nullptr;   // [d]; null exactly if forward.q_norm is
  float* dk_norm = nullptr;   // [d]; likewise
  bool accumulates = false;   // dq_norm and dk_norm are added to what they hold
  void* workspace = nullptr;  // CudaHeadsBackwardWorkspace() bytes; may be null if that is 0
};
size_t CudaHeadsBackwardWorkspace(const CudaHeadsArgs& forward);
// INVALID_ARGUMENT names a null pointer; UNIMPLEMENTED a head_dim above 128 or odd.
absl::Status CudaHeadsBackward(const CudaHeadsBackwardArgs& args, cudaStream_t stream);

}  // namespace statehouse::kernels
