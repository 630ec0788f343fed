// What happens between the projections and retention, on the GPU: biases, per-head norms of q and k, RoPE, and the
// gate's log sigmoid; in place, on rows that hold all heads' q, k, v and gates one after another.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/math/scalar_math.h"

namespace statehouse::kernels {

// Cosine and sine of every pair's angle at every position: angles [num_rows, head_dim / 2] of (cos, sin). Formed and
// reduced in double, as RopeFrequencies does; `turns` [head_dim / 2] are its own, in device memory.
absl::Status CudaRopeAngles(const int64_t* positions, const DoubleDouble* turns, float2* angles, int64_t num_rows,
                            int head_dim, cudaStream_t stream);

struct CudaHeadsArgs {
  float* x = nullptr;              // [num_rows, row_stride]: q [Hq, d], k [Hk, d], v [Hk, d], gates [Hk]
  const float* bias = nullptr;     // [Hq d + 2 Hk d + Hk] or null
  const float* q_norm = nullptr;   // [d], RMS norm per head, or null
  const float* k_norm = nullptr;   // [d]; null exactly if q_norm is
  const float2* angles = nullptr;  // [num_rows, d / 2]
  int64_t num_rows = 0;
  int64_t row_stride = 0;
  int heads_q = 0;
  int heads_kv = 0;
  int head_dim = 0;  // even, at most 128
  float epsilon = 1e-6f;
};
absl::Status CudaPrepareHeads(const CudaHeadsArgs& args, cudaStream_t stream);

}  // namespace statehouse::kernels
