// What a chunk's queries give to the gradient of the state before it, in float32 without tensor cores:
//   Σ_t φ(q_t) (σ² e^L / den dY_t)ᵀ and, of the normaliser, -Σ_t φ(q_t) σ² e^L / den (dY_t·y_t)
// over the rows of all query heads of a group, one head after another. Blocks and sums as in fold_wide.cuh.
#pragma once

#include <cuda_runtime.h>

#include "kernels/power_retention/cuda/backward_args.cuh"
#include "kernels/power_retention/cuda/fold_wide.cuh"

namespace statehouse::kernels {

template <int kDim>
struct WideGradientFoldShared {
  WideFoldShared<kDim> rows;     // q, dY, σ² e^L / den
  float deltas[kWideFoldBatch];  // dY·y
};

// Adds a batch of rows: as WideFoldSums::Add(), but a row's share of z has a factor of its own.
template <int kDim>
__device__ __forceinline__ void AddQueriesWide(const WideGradientFoldShared<kDim>& shared, WideFoldSums<kDim>& sums) {
  constexpr int kColumns = WideFoldSums<kDim>::kColumns;
  const int i = sums.Row(), column = sums.Column();
#pragma unroll 4
  for (int row = 0; row < kWideFoldBatch; ++row) {
    const float qi = shared.rows.weights[row] * shared.rows.ki[row][i], delta = shared.deltas[row];
    const auto v = *reinterpret_cast<const Neighbours<float, kColumns>*>(&shared.rows.values[row][column]);
    const float4 low = *reinterpret_cast<const float4*>(shared.rows.kj[row]);
    const float4 high = *reinterpret_cast<const float4*>(shared.rows.kj[row] + 4);
    const float qj[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float phi = qi * qj[j];
      sums.z[j] = fmaf(phi, -delta, sums.z[j]);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) sums.S[j][c] = fmaf(phi, v.x[c], sums.S[j][c]);
    }
  }
}

// Grid (tiles, Hk, chunks).
template <typename T, int kDim>
__global__ void __launch_bounds__(kWideFoldThreads) FoldQueriesWide(BackwardArgs<T> args) {
  using Sums = WideFoldSums<kDim>;
  __shared__ __align__(16) WideGradientFoldShared<kDim> shared;
  const RetentionArgs<T>& forward = args.forward;
  const int n = blockIdx.z, h = blockIdx.y, group = forward.heads_q / forward.heads_kv;
  const ChunkEntry chunk = forward.chunks[n];
  if (!IsFolded(forward, chunk)) return;
  const TilePosition at = TileAt<kDim / 8>(blockIdx.x);
  const int64_t slot = static_cast<int64_t>(n) * forward.heads_kv + h;
  const float2* chunk_sums = forward.sums + slot * forward.chunk_rows;
  Sums sums;
  for (int head = h * group; head < (h + 1) * group; ++head) {
    const float2* rows = args.rows + (static_cast<int64_t>(n) * forward.heads_q + head) * forward.chunk_rows;
    for (int first = 0; first < chunk.num_rows; first += kWideFoldBatch) {
      __syncthreads();  // all are done with the batch before
      LoadWideBatch<T, kDim>(
          forward.Q, args.dY, at,
          [&](int row) {
            return first + row < chunk.num_rows ? (chunk.first_row + first + row) * forward.heads_q + head
                                                : int64_t{-1};
          },
          [](int row, int unit) { return Sums::Unit(row, unit); }, shared.rows);
      if (threadIdx.x < kWideFoldBatch) {
        const int row = first + static_cast<int>(threadIdx.x);
        const bool is_valid = row < chunk.num_rows;
        shared.rows.weights[threadIdx.x] = is_valid ? rows[row].x * expf(chunk_sums[row].x) : 0.0f;
        shared.deltas[threadIdx.x] = is_valid ? rows[row].y : 0.0f;
      }
      __syncthreads();  // the batch is there
      AddQueriesWide<kDim>(shared, sums);
    }
  }
  StoreWideFold<T, kDim>(forward, slot, sums);
}

}  // namespace statehouse::kernels
