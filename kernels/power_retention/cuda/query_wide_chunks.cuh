// The kernel of query_wide.cuh, with states of degree 2 and 4.
#pragma once

#include <cuda_runtime.h>

#include <cfloat>

#include "kernels/power_retention/cuda/fourth.cuh"
#include "kernels/power_retention/cuda/query_wide.cuh"

namespace statehouse::kernels {

// Grid (2 blocks, Hq).
template <typename T, int kDim>
__global__ void __launch_bounds__(WideQueryTiles<kDim>::kThreads) QueryChunksWide(RetentionArgs<T> args) {
  using Tiles = WideQueryTiles<kDim>;
  static_assert(kBlockRows == 2 * Tiles::kRows);
  extern __shared__ __align__(16) float wide_shared[];
  float* queries = wide_shared;
  float* buffer = queries + kDim * Tiles::kRowStride;
  const BlockEntry block = args.blocks[blockIdx.x / 2];
  const ChunkEntry chunk = args.chunks[block.chunk];
  const int first_row = block.first_row + static_cast<int>(blockIdx.x) % 2 * Tiles::kRows;
  if (first_row >= chunk.num_rows) return;
  const int head = blockIdx.y, head_kv = head / (args.heads_q / args.heads_kv);
  const int64_t slot = static_cast<int64_t>(block.chunk) * args.heads_kv + head_kv;
  const float2* chunk_sums = args.sums + slot * args.chunk_rows;
  for (int unit = threadIdx.x; unit < Tiles::kRows * (kDim / 8); unit += Tiles::kThreads) {
    const int row = unit % Tiles::kRows, column = unit / Tiles::kRows * 8;
    float q[8] = {};
    if (first_row + row < chunk.num_rows)
      LoadEight(q, args.Q + ((chunk.first_row + first_row + row) * args.heads_q + head) * kDim + column);
#pragma unroll
    for (int e = 0; e < 8; ++e) queries[(column + e) * Tiles::kRowStride + row] = q[e];
  }
  __syncthreads();  // the queries are there

  WideQuerySums<kDim> sums;
  if (HasState(args, chunk)) {
    const int64_t state_row = slot * RetentionStateRows(kDim, args.degree);
    const float* state = reinterpret_cast<const float*>(args.prefix) + state_row * kDim;
    const float* z = args.prefix_z + state_row;
    float scale = args.scale_squared;
    if constexpr (kDim <= kMostFourthDim) {
      __shared__ FourthShared shared;
      if (args.degree == 4) {
        QueryStateFourth<kDim, false>(queries, buffer, state, z, shared, sums);
        scale *= args.scale_squared;
      }
    }
    if constexpr (std::is_same_v<PrefixElement<T>, float>) {  // other types have states of degree 4 alone
      if (args.degree == 2) QueryStateWide<kDim>(queries, buffer, state, z, sums);
    }
#pragma unroll
    for (int r = 0; r < Tiles::kOwnRows; ++r)
      sums.Multiply(r, scale * expf(chunk_sums[min(first_row + Tiles::Row() + r, chunk.num_rows - 1)].x));
  }
  QueryKeysWide<T, kDim>(args, chunk, head_kv, chunk_sums, first_row, queries, buffer, sums);
#pragma unroll
  for (int r = 0; r < Tiles::kOwnRows; ++r) {
    const int row = first_row + Tiles::Row() + r;
    if (row >= chunk.num_rows) break;
    const float denominator = sums.denominator[r], inverse = denominator >= FLT_MIN ? 1 / denominator : 0.0f;
    const int64_t at = (chunk.first_row + row) * args.heads_q + head;
    if (args.denominator != nullptr && threadIdx.x % 16 == 0) args.denominator[at] = denominator;
    sums.StoreRow(r, inverse, args.y + at * kDim);
  }
}

}  // namespace statehouse::kernels
