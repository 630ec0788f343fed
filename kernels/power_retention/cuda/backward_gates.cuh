// dlog_G[u] = Σ w dW over all pairs (t, j) that the gate of u lies between, j < u <= t: those that cross the chunk
// altogether, rows from u on with earlier chunks, keys before u with later ones, and pairs of the chunk itself. No sum
// is longer than a chunk, so errors of far rows do not add up.
#pragma once

#include <cuda_runtime.h>

#include "kernels/power_retention/cuda/backward_args.cuh"

namespace statehouse::kernels {

inline constexpr int kGateGradientThreads = 256;

// Grid (chunks, Hk).
template <typename T>
__global__ void __launch_bounds__(kGateGradientThreads) SumGateGradients(BackwardArgs<T> args) {
  __shared__ double warp_sums[kGateGradientThreads / 32], warp_totals[kGateGradientThreads / 32],
      warp_borders[kGateGradientThreads / 32];
  const RetentionArgs<T>& forward = args.forward;
  const int n = blockIdx.x, h = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const ChunkEntry chunk = forward.chunks[n];
  const int64_t slot = static_cast<int64_t>(n) * forward.heads_kv + h;
  const int group = forward.heads_q / forward.heads_kv;
  const float* query_sums = args.query_sums + slot * group * forward.chunk_rows;
  const float2* key_sums = args.key_sums + slot * forward.chunk_rows;
  const int per_thread = (chunk.num_rows + kGateGradientThreads - 1) / kGateGradientThreads;
  const int first = threadIdx.x * per_thread, end = min(first + per_thread, chunk.num_rows);

  // Of a row: what it takes into its own gate's sum, and what it leaves in later ones'.
  const auto entering = [&](int c) {
    double sum = 0;
    for (int q = 0; q < group; ++q) sum += query_sums[static_cast<int64_t>(q) * forward.chunk_rows + c];
    return sum - key_sums[c].y;
  };
  double total = 0, moved = 0;
  for (int c = first; c < end; ++c) {
    const double own = entering(c);
    total += own;
    moved += key_sums[c].x - own;
  }
  double border = 0;
  if (args.has_suffix) {
    for (int part = threadIdx.x; part < args.border_parts; part += kGateGradientThreads)
      border += args.border[slot * args.border_parts + part];
  }
  double inclusive = moved;
  for (int offset = 1; offset < 32; offset *= 2) {
    const double other = __shfl_up_sync(0xffffffffu, inclusive, offset);
    if (lane >= offset) inclusive += other;
    total += __shfl_xor_sync(0xffffffffu, total, offset);
    border += __shfl_xor_sync(0xffffffffu, border, offset);
  }
  if (lane == 31) warp_sums[warp] = inclusive;
  if (lane == 0) warp_totals[warp] = total, warp_borders[warp] = border;
  __syncthreads();
  double sum = inclusive - moved;
  for (int w = 0; w < warp; ++w) sum += warp_sums[w];
  for (int w = 0; w < kGateGradientThreads / 32; ++w) sum += warp_totals[w] + forward.decay[slot] * warp_borders[w];
  for (int c = first; c < end; ++c) {
    args.dlog_G[(chunk.first_row + c) * forward.heads_kv + h] = static_cast<float>(sum);
    sum += key_sums[c].x - entering(c);
  }
}

}  // namespace statehouse::kernels
