// Rows folded into a state of degree 4 (fourth.cuh), in float32: what a chunk's keys and values add to S and z, and
// what its queries and dY give to their gradients.
//
// A block takes 64 rows of one head's state, a thread one of them and a quarter of the columns; rows of the chunk come
// 32 at a time.
#pragma once

#include <cuda_runtime.h>

#include "kernels/power_retention/cuda/backward_args.cuh"
#include "kernels/power_retention/cuda/fourth.cuh"
#include "kernels/power_retention/cuda/widen.cuh"

namespace statehouse::kernels {

inline constexpr int kFourthThreads = 256;
inline constexpr int kFourthBatch = 32;

template <int kDim>
struct FourthFoldShared {
  float x[kFourthBatch][kDim], values[kFourthBatch][kDim];
  float weights[kFourthBatch];    // of a row in S; 0 past the last
  float z_weights[kFourthBatch];  // in z, as a multiple of that
  float phi[kFourthBatch][kFourthTile];
};

template <int kDim>
struct FourthFoldSums {
  static constexpr int kColumns = kDim / 4;
  float S[kColumns] = {};
  float z = 0;

  static __device__ __forceinline__ int Row() { return threadIdx.x % kFourthTile; }
  static __device__ __forceinline__ int Column() { return threadIdx.x / kFourthTile * kColumns; }

  // Adds a batch. All threads call it; the batch is there, and may be overwritten after a barrier.
  __device__ __forceinline__ void Add(uchar4 at, FourthFoldShared<kDim>& shared) {
    for (int token = threadIdx.x / kFourthTile; token < kFourthBatch; token += kFourthThreads / kFourthTile) {
      const float* x = shared.x[token];
      shared.phi[token][Row()] = shared.weights[token] * x[at.x] * x[at.y] * (x[at.z] * x[at.w]);
    }
    __syncthreads();  // φ is there
#pragma unroll 4
    for (int token = 0; token < kFourthBatch; ++token) {
      const float phi = shared.phi[token][Row()];
      z = fmaf(phi, shared.z_weights[token], z);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) S[c] = fmaf(phi, shared.values[token][Column() + c], S[c]);
    }
  }
};

// A batch of rows: `place(row)` as for LoadWideBatch(), `weights_of(row)` a row's weights in S and z.
template <typename T, int kDim, typename Place, typename Weights>
__device__ __forceinline__ void LoadFourthBatch(const T* x, const T* values, const Place& place,
                                                const Weights& weights_of, FourthFoldShared<kDim>& shared) {
  constexpr int kUnits = kDim / 8;
  for (int unit = threadIdx.x; unit < kFourthBatch * kUnits; unit += kFourthThreads) {
    const int row = unit / kUnits, column = unit % kUnits * 8;
    const int64_t from = place(row);
    WidenUnit(shared.x[row] + column, from < 0 ? nullptr : x + from * kDim + column);
    WidenUnit(shared.values[row] + column, from < 0 ? nullptr : values + from * kDim + column);
  }
  if (threadIdx.x < kFourthBatch) {
    const float2 weights = place(threadIdx.x) < 0 ? float2{} : weights_of(threadIdx.x);
    shared.weights[threadIdx.x] = weights.x;
    shared.z_weights[threadIdx.x] = weights.y;
  }
}

// A thread's sums to the workspace, each as often as its product counts.
template <typename T, int kDim>
__device__ __forceinline__ void StoreFourthFold(const RetentionArgs<T>& args, int64_t slot, int row, float count,
                                                const FourthFoldSums<kDim>& sums) {
  if (row >= kFourthRows<kDim>) return;
  const int64_t at = slot * kFourthRows<kDim> + row;
  if (sums.Column() == 0) args.local_z[at] = count * sums.z;
#pragma unroll
  for (int c = 0; c < sums.kColumns; ++c) args.local[at * kDim + sums.Column() + c] = count * sums.S[c];
}

// Grid (kFourthTiles, Hk, chunks).
template <typename T, int kDim>
__global__ void __launch_bounds__(kFourthThreads) FoldKeysFourth(RetentionArgs<T> args) {
  __shared__ __align__(16) FourthFoldShared<kDim> shared;
  const int n = blockIdx.z, h = blockIdx.y;
  const ChunkEntry chunk = args.chunks[n];
  if (!IsFolded(args, chunk)) return;
  const int row = blockIdx.x * kFourthTile + FourthFoldSums<kDim>::Row();
  const Fourth fourth = FourthAt<kDim>(min(row, kFourthRows<kDim> - 1));
  const int64_t slot = static_cast<int64_t>(n) * args.heads_kv + h;
  const float2* chunk_sums = args.sums + slot * args.chunk_rows;
  FourthFoldSums<kDim> sums;
  for (int first = 0; first < chunk.num_rows; first += kFourthBatch) {
    __syncthreads();  // all are done with the batch before
    LoadFourthBatch<T, kDim>(
        args.K, args.V,
        [&](int token) {
          return first + token < chunk.num_rows ? (chunk.first_row + first + token) * args.heads_kv + h : int64_t{-1};
        },
        [&](int token) {
          return float2{expf(Difference(chunk_sums[chunk.num_rows - 1], chunk_sums[first + token])), 1.0f};
        },
        shared);
    __syncthreads();  // the batch is there
    sums.Add(fourth.at, shared);
  }
  StoreFourthFold<T, kDim>(args, slot, row, fourth.count, sums);
}

// Σ_t φ(q_t) (σ⁴ e^L / den dY_t)ᵀ and -Σ_t φ(q_t) σ⁴ e^L / den (dY_t·y_t). Grid (kFourthTiles, Hk, chunks).
template <typename T, int kDim>
__global__ void __launch_bounds__(kFourthThreads) FoldQueriesFourth(BackwardArgs<T> args) {
  __shared__ __align__(16) FourthFoldShared<kDim> shared;
  const RetentionArgs<T>& forward = args.forward;
  const int n = blockIdx.z, h = blockIdx.y, group = forward.heads_q / forward.heads_kv;
  const ChunkEntry chunk = forward.chunks[n];
  if (!IsFolded(forward, chunk)) return;
  const int row = blockIdx.x * kFourthTile + FourthFoldSums<kDim>::Row();
  const Fourth fourth = FourthAt<kDim>(min(row, kFourthRows<kDim> - 1));
  const int64_t slot = static_cast<int64_t>(n) * forward.heads_kv + h;
  const float2* chunk_sums = forward.sums + slot * forward.chunk_rows;
  FourthFoldSums<kDim> sums;
  for (int head = h * group; head < (h + 1) * group; ++head) {
    const float2* brings = args.rows + (static_cast<int64_t>(n) * forward.heads_q + head) * forward.chunk_rows;
    for (int first = 0; first < chunk.num_rows; first += kFourthBatch) {
      __syncthreads();  // all are done with the batch before
      LoadFourthBatch<T, kDim>(
          forward.Q, args.dY,
          [&](int token) {
            return first + token < chunk.num_rows ? (chunk.first_row + first + token) * forward.heads_q + head
                                                  : int64_t{-1};
          },
          [&](int token) {
            const float2 row_brings = brings[first + token];
            return float2{row_brings.x * expf(chunk_sums[first + token].x), -row_brings.y};
          },
          shared);
      __syncthreads();  // the batch is there
      sums.Add(fourth.at, shared);
    }
  }
  StoreFourthFold<T, kDim>(forward, slot, row, 1.0f, sums);
}

}  // namespace statehouse::kernels
