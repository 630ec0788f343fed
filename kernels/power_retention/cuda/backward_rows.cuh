// What each row of a query head brings into a backward pass:
//   rows[t] = σ^p / den, dY·y                                                  (WeighRows)
//   keys = Qᵀ, values[t] = σ² e^L / den dY, weights = -σ² e^L / den (dY·y)     (PrepareQueries)
// The second is what a fold turns into Σ_t φ(q) dnumᵀ and Σ_t φ(q) dden of a chunk. With dW = (dY·v - dY·y) / den the
// products take dY as it is; only sums that leave a chunk are divided before they are rounded.
#pragma once

#include <cuda_runtime.h>

#include <cfloat>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/backward_args.cuh"
#include "kernels/power_retention/cuda/prepare.cuh"
#include "kernels/power_retention/cuda/widen.cuh"

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
      float y[8], dY[8];
      LoadEight(y, args.y + (at * kUnits + column) * 8);
      LoadEight(dY, args.dY + (at * kUnits + column) * 8);
#pragma unroll
      for (int e = 0; e < 8; e += 2) sum += y[e] * dY[e] + y[e + 1] * dY[e + 1];
    }
#pragma unroll
    for (int offset = kUnits / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (column != 0 || in_block >= kBlockRows) continue;
    const float denominator = is_valid ? args.denominator[at] : 0.0f;
    const float scale = forward.degree == 2 ? forward.scale_squared : forward.scale_squared * forward.scale_squared;
    out[row] = {denominator >= FLT_MIN ? scale / denominator : 0.0f, sum};
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
