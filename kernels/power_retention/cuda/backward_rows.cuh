// What each row of a query head brings into a backward pass:
//   rows[t] = σ² / den, dY·y                                                   (WeighRows)
//   keys = Qᵀ, values[t] = σ² e^L / den dY, weights = -σ² e^L / den (dY·y)     (PrepareQueries)
// The second is what a fold turns into Σ_t φ(q) dnumᵀ and Σ_t φ(q) dden of a chunk. With dW = (dY·v - dY·y) / den the
// products take dY as it is; only sums that leave a chunk are divided before they are rounded.
#pragma once

#include <cuda_runtime.h>

#include <cfloat>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/backward_args.cuh"
#include "kernels/power_retention/cuda/prepare.cuh"

namespace statehouse::kernels {

inline constexpr int kWeighThreads = 256;

// Grid (blocks, Hq). A lane takes 8 elements of a row.
template <typename T, int kDim>
__global__ void __launch_bounds__(kWeighThreads) WeighRows(BackwardArgs<T> args) {
  constexpr int kUnits = kDim / 8, kRows = kWeighThreads / kUnits;  // lanes of a row; rows at a time
  const RetentionArgs<T>& forward = args.forward;
  const BlockEntry block = forward.blocks[blockIdx.x];
  const ChunkEntry chunk = forward.chunks[block.chunk];
  const int head = blockIdx.y, column = threadIdx.x % kUnits;
  float2* out = args.rows + (static_cast<int64_t>(block.chunk) * forward.heads_q + head) * forward.chunk_rows;
#pragma unroll
  for (int turn = 0; turn < kBlockRows / kRows + (kBlockRows % kRows != 0); ++turn) {
    const int in_block = turn * kRows + static_cast<int>(threadIdx.x) / kUnits, row = block.first_row + in_block;
    const int64_t at = (chunk.first_row + row) * forward.heads_q + head;
    const bool is_valid = in_block < kBlockRows && row < chunk.num_rows;
    float sum = 0;
    if (is_valid) {
      const uint4 a = reinterpret_cast<const uint4*>(args.y)[at * kUnits + column];
      const uint4 b = reinterpret_cast<const uint4*>(args.dY)[at * kUnits + column];
      const uint32_t x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int w = 0; w < 4; ++w)
        sum += Pair<T>::Low(x[w]) * Pair<T>::Low(y[w]) + Pair<T>::High(x[w]) * Pair<T>::High(y[w]);
    }
#pragma unroll
    for (int offset = kUnits / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (column != 0 || in_block >= kBlockRows) continue;
    const float denominator = is_valid ? args.denominator[at] : 0.0f;
    out[row] = {denominator >= FLT_MIN ? forward.scale_squared / denominator : 0.0f, sum};
  }
}

// Grid (tiles of a chunk, Hq, chunks). The rows of a group's heads lie after one another, tile by tile.
template <typename T, int kDim>
__global__ void __launch_bounds__(kPrepareThreads) PrepareQueries(BackwardArgs<T> args) {
  const RetentionArgs<T>& forward = args.forward;
  const int n = blockIdx.z, head = blockIdx.y, first = blockIdx.x * kTokenTile;
  const ChunkEntry chunk = forward.chunks[n];
  if (!IsFolded(forward, chunk) || first >= chunk.num_rows) return;
  const int group = forward.heads_q / forward.heads_kv;
  const int64_t slot = static_cast<int64_t>(n) * forward.heads_kv + head / group;
  const float2* sums = forward.sums + slot * forward.chunk_rows;
  const float2* rows = args.rows + (static_cast<int64_t>(n) * forward.heads_q + head) * forward.chunk_rows;
  const int tiles = (chunk.num_rows + kTokenTile - 1) / kTokenTile;
  const int tile = head % group * tiles + blockIdx.x;
  const auto factor = [&](int c) { return rows[first + c].x * expf(sums[first + c].x); };
  PrepareTile<T, kDim>(forward, slot, tile, [&](int c, int column, uint4& key, uint4& value) {
    if (first + c >= chunk.num_rows) return;
    const int64_t at = ((chunk.first_row + first + c) * forward.heads_q + head) * (kDim / 8) + column;
    key = reinterpret_cast<const uint4*>(forward.Q)[at];
    value = reinterpret_cast<const uint4*>(args.dY)[at];
    ScaleUnit<T>(value, factor(c));
  });
  float* weights = args.fold_weights + slot * FoldRows(forward) + int64_t{tile} * kTokenTile;
  for (int c = threadIdx.x; c < kTokenTile; c += kPrepareThreads) weights[c] = -factor(c) * rows[first + c].y;
}

}  // namespace statehouse::kernels
