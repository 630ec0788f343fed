// Rows folded into a state in float32 without tensor cores: for the types whose products 16 bits do not hold, and for
// slots, where one chunk in C tokens leaves arithmetic to spare.
//
// A block takes one 8x8 tile (I, J) of pairs of one head: 64 rows of S, all d columns, in registers. A warp takes one
// i, a lane kColumns columns and all eight j: per row of the chunk one product w k_i, eight with k_j, and 8 kColumns
// sums.
//   shared: k of I and J [64][8] each, v [64][d], weights [64], all in float32
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/retention.h"
#include "kernels/power_retention/cuda/widen.cuh"

namespace statehouse::kernels {

inline constexpr int kWideFoldThreads = 256;
inline constexpr int kWideFoldBatch = 64;  // rows in shared memory

template <int kDim>
struct WideFoldShared {
  float ki[kWideFoldBatch][8], kj[kWideFoldBatch][8];
  float values[kWideFoldBatch][kDim];
  float weights[kWideFoldBatch];  // what is left of a row at the chunk's end; 0 past the last row
};

template <int kDim>
struct WideFoldSums {
  static constexpr int kColumns = kDim < 32 ? 1 : kDim / 32;  // of a lane
  float S[8][kColumns] = {};
  float z[8] = {};

  // This thread's i within the tile, and its first column.
  static __device__ __forceinline__ int Row() { return threadIdx.x / 32; }
  static __device__ __forceinline__ int Column() { return threadIdx.x % 32 * kColumns % kDim; }
  // Lanes that have columns; d = 16 leaves half of them without.
  static __device__ __forceinline__ bool HasColumns() { return threadIdx.x % 32 * kColumns < kDim; }

  // Where 4 neighbours of a row's values lie, in floats.
  static __device__ __forceinline__ int Unit(int, int unit) { return unit * 4; }

  // Adds a batch of rows.
  __device__ __forceinline__ void Add(const WideFoldShared<kDim>& shared) {
    const int i = Row(), column = Column();
#pragma unroll 4
    for (int row = 0; row < kWideFoldBatch; ++row) {
      const float ki = shared.weights[row] * shared.ki[row][i];
      const auto v = *reinterpret_cast<const Neighbours<float, kColumns>*>(&shared.values[row][column]);
      const float4 low = *reinterpret_cast<const float4*>(shared.kj[row]);
      const float4 high = *reinterpret_cast<const float4*>(shared.kj[row] + 4);
      const float kj[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float phi = ki * kj[j];
        z[j] += phi;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) S[j][c] = fmaf(phi, v.x[c], S[j][c]);
      }
    }
  }
};

// A batch of rows into shared memory. `place(row)`: the row's index in K and V, in units of d elements; negative past
// the last row. `unit_of(row, unit)`: where 4 neighbours of a row's values lie.
template <typename T, int kDim, typename Place, typename Unit>
__device__ __forceinline__ void LoadWideBatch(const T* keys, const T* values, TilePosition at, const Place& place,
                                              const Unit& unit_of, WideFoldShared<kDim>& shared) {
  constexpr int kUnits = kDim / 8;
  for (int unit = threadIdx.x; unit < kWideFoldBatch * (kUnits + 2); unit += kWideFoldThreads) {
    const int row = unit / (kUnits + 2), column = unit % (kUnits + 2);
    const int64_t from = place(row);
    if (column < kUnits) {
      float x[8] = {};
      if (from >= 0) LoadEight(x, values + from * kDim + column * 8);
      *reinterpret_cast<float4*>(shared.values[row] + unit_of(row, 2 * column)) = {x[0], x[1], x[2], x[3]};
      *reinterpret_cast<float4*>(shared.values[row] + unit_of(row, 2 * column + 1)) = {x[4], x[5], x[6], x[7]};
    } else {
      const bool is_i = column == kUnits;
      WidenUnit(is_i ? shared.ki[row] : shared.kj[row],
                from < 0 ? nullptr : keys + from * kDim + (is_i ? at.I : at.J) * 8);
    }
  }
}

// A block's sums to the workspace.
template <typename T, int kDim>
__device__ __forceinline__ void StoreWideFold(const RetentionArgs<T>& args, int64_t slot,
                                              const WideFoldSums<kDim>& sums) {
  using Sums = WideFoldSums<kDim>;
  const int64_t first_row = slot * RetentionStateRows(kDim) + int64_t{blockIdx.x} * 64 + Sums::Row() * 8;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    if (threadIdx.x % 32 == 0) args.local_z[first_row + j] = sums.z[j];
    if (!Sums::HasColumns()) continue;
    Neighbours<float, Sums::kColumns> row;
#pragma unroll
    for (int c = 0; c < Sums::kColumns; ++c) row.x[c] = sums.S[j][c];
    *reinterpret_cast<Neighbours<float, Sums::kColumns>*>(args.local + (first_row + j) * kDim + Sums::Column()) = row;
  }
}

// What each chunk adds to S and z. Grid (tiles, Hk, chunks).
template <typename T, int kDim>
__global__ void __launch_bounds__(kWideFoldThreads) FoldChunksWide(RetentionArgs<T> args) {
  using Sums = WideFoldSums<kDim>;
  __shared__ __align__(16) WideFoldShared<kDim> shared;
  const int n = blockIdx.z, h = blockIdx.y;
  const ChunkEntry chunk = args.chunks[n];
  if (!IsFolded(args, chunk)) return;
  const TilePosition at = TileAt<kDim / 8>(blockIdx.x);
  const int64_t slot = static_cast<int64_t>(n) * args.heads_kv + h;
  const float2* chunk_sums = args.sums + slot * args.chunk_rows;
  Sums sums;
  for (int first = 0; first < chunk.num_rows; first += kWideFoldBatch) {
    __syncthreads();  // all are done with the batch before
    LoadWideBatch<T, kDim>(
        args.K, args.V, at,
        [&](int row) {
          return first + row < chunk.num_rows ? (chunk.first_row + first + row) * args.heads_kv + h : int64_t{-1};
        },
        [](int row, int unit) { return Sums::Unit(row, unit); }, shared);
    if (threadIdx.x < kWideFoldBatch) {
      const int row = first + static_cast<int>(threadIdx.x);
      shared.weights[threadIdx.x] =
          row < chunk.num_rows ? expf(Difference(chunk_sums[chunk.num_rows - 1], chunk_sums[row])) : 0.0f;
    }
    __syncthreads();  // the batch is there
    sums.Add(shared);
  }
  StoreWideFold<T, kDim>(args, slot, sums);
}

}  // namespace statehouse::kernels
