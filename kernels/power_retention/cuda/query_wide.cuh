// The rows of half a block of one query head, in float32 without tensor cores:
//   y = (e^L σ² φ(q)ᵀ S + Σ_j (σ q·k_j)^p e^{L - L_j} v_j) / (the same with z and 1)
// as query.cuh, for the types whose squares 16 bits do not hold, and for degree 4.
//
// A thread takes 4 rows and d/16 columns of y, all of the sum over the state's rows, then over keys, 32 at a time.
//   shared: qᵀ [d][68]; a tile of S [64][d] and of z, or K [32][d + 4], V [32][d], weights [32][68]
#pragma once

#include <cuda_runtime.h>

#include <cfloat>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/retention.h"
#include "kernels/power_retention/cuda/widen.cuh"

namespace statehouse::kernels {

template <int kDim>
struct WideQueryTiles {
  static constexpr int kThreads = 256;
  static constexpr int kRows = 64;  // of a block
  static constexpr int kOwnRows = 4;
  static constexpr int kColumns = kDim / 16;
  static constexpr int kVector = kColumns < 4 ? kColumns : 4;
  static constexpr int kVectors = kColumns / kVector;
  static constexpr int kKeys = 32;
  static constexpr int kRowStride = kRows + 4, kKeyStride = kDim + 4;
  static constexpr int kStateFloats = 64 * kDim + 64;
  static constexpr int kKeyFloats = kKeys * (kKeyStride + kDim + kRowStride);
  static constexpr int kSharedBytes = 4 * (kDim * kRowStride + (kStateFloats > kKeyFloats ? kStateFloats : kKeyFloats));

  // This thread's first row and its columns.
  static __device__ __forceinline__ int Row() { return threadIdx.x / 16 * kOwnRows; }
  static __device__ __forceinline__ int Column(int vector) { return vector * 64 + threadIdx.x % 16 * kVector; }
};

template <int kDim>
struct WideQuerySums {
  using Tiles = WideQueryTiles<kDim>;
  float y[Tiles::kOwnRows][Tiles::kVectors][Tiles::kVector] = {};
  float denominator[Tiles::kOwnRows] = {};

  // y += weights of the thread's rows times one row of S or V.
  __device__ __forceinline__ void Add(const float (&weights)[4], const float* row) {
#pragma unroll
    for (int vector = 0; vector < Tiles::kVectors; ++vector) {
      const auto values = *reinterpret_cast<const Neighbours<float, Tiles::kVector>*>(row + Tiles::Column(vector));
#pragma unroll
      for (int r = 0; r < Tiles::kOwnRows; ++r) {
#pragma unroll
        for (int c = 0; c < Tiles::kVector; ++c) y[r][vector][c] = fmaf(weights[r], values.x[c], y[r][vector][c]);
      }
    }
  }
  __device__ __forceinline__ void Multiply(int row, float factor) {
    denominator[row] *= factor;
#pragma unroll
    for (int vector = 0; vector < Tiles::kVectors; ++vector) {
#pragma unroll
      for (int c = 0; c < Tiles::kVector; ++c) y[row][vector][c] *= factor;
    }
  }
  // The thread's part of the product with a row of `rows` [d][kRowStride], transposed as the block's queries are.
  __device__ __forceinline__ float Dot(int row, const float* rows) const {
    float sum = 0;
#pragma unroll
    for (int vector = 0; vector < Tiles::kVectors; ++vector) {
#pragma unroll
      for (int c = 0; c < Tiles::kVector; ++c)
        sum = fmaf(y[row][vector][c], rows[(Tiles::Column(vector) + c) * Tiles::kRowStride + Tiles::Row() + row], sum);
    }
    return sum;
  }
  template <typename T>
  __device__ __forceinline__ void StoreRow(int row, float factor, T* to) const {
#pragma unroll
    for (int vector = 0; vector < Tiles::kVectors; ++vector) {
#pragma unroll
      for (int c = 0; c < Tiles::kVector; ++c) to[Tiles::Column(vector) + c] = T(y[row][vector][c] * factor);
    }
  }
};

__device__ __forceinline__ void LoadFour(float (&to)[4], const float* from) {
  const float4 x = *reinterpret_cast<const float4*>(from);
  to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
}

// y += φ(q)ᵀ S, in which tiles I < J hold their multiplicity, and z, which does not.
template <int kDim>
__device__ __forceinline__ void QueryStateWide(const float* queries, float* tile, const float* state, const float* z,
                                               WideQuerySums<kDim>& sums) {
  using Tiles = WideQueryTiles<kDim>;
  const float* rows = queries + Tiles::Row();
  int index = 0;
#pragma unroll 1
  for (int I = 0; I < kDim / 8; ++I) {
#pragma unroll 1
    for (int J = I; J < kDim / 8; ++J, ++index) {
      __syncthreads();  // all are done with the tile before
      ForEach<16 * kDim, Tiles::kThreads>([&](int unit) {
        reinterpret_cast<float4*>(tile)[unit] =
            reinterpret_cast<const float4*>(state + int64_t{index} * 64 * kDim)[unit];
      });
      if (threadIdx.x < 64) tile[64 * kDim + threadIdx.x] = z[index * 64 + threadIdx.x];
      __syncthreads();  // the tile is there
      const float factor = I < J ? 2.0f : 1.0f;
#pragma unroll 1
      for (int i = 0; i < 8; ++i) {
        float qi[4];
        LoadFour(qi, rows + (I * 8 + i) * Tiles::kRowStride);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          float phi[4];
          LoadFour(phi, rows + (J * 8 + j) * Tiles::kRowStride);
          const float z_value = factor * tile[64 * kDim + i * 8 + j];
#pragma unroll
          for (int r = 0; r < 4; ++r) {
            phi[r] *= qi[r];
            sums.denominator[r] = fmaf(phi[r], z_value, sums.denominator[r]);
          }
          sums.Add(phi, tile + (i * 8 + j) * kDim);
        }
      }
    }
  }
}

// Weights of the block's rows and 32 keys, from `first_key` of the chunk on.
template <typename T, int kDim>
__device__ __forceinline__ void WeighKeysWide(const RetentionArgs<T>& args, const float2* chunk_sums, int first_row,
                                              int first_key, int num_rows, const float* queries, const float* keys,
                                              float* weights) {
  using Tiles = WideQueryTiles<kDim>;
  const int own = threadIdx.x % 16;  // keys own and own + 16
  float scores[2][4] = {};
#pragma unroll 2
  for (int c = 0; c < kDim; c += 4) {
    float k[2][4];
    LoadFour(k[0], keys + own * Tiles::kKeyStride + c);
    LoadFour(k[1], keys + (own + 16) * Tiles::kKeyStride + c);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float q[4];
      LoadFour(q, queries + (c + e) * Tiles::kRowStride + Tiles::Row());
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        scores[0][r] = fmaf(q[r], k[0][e], scores[0][r]);
        scores[1][r] = fmaf(q[r], k[1][e], scores[1][r]);
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int key = first_key + own + half * 16;
    float out[4] = {};
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = first_row + Tiles::Row() + r;
      if (key > row || row >= num_rows) continue;
      const float squared = scores[half][r] * scores[half][r] * args.scale_squared;
      out[r] = (args.degree == 2 ? squared : squared * squared) * expf(Difference(chunk_sums[row], chunk_sums[key]));
    }
    *reinterpret_cast<float4*>(weights + (own + half * 16) * Tiles::kRowStride + Tiles::Row()) = {out[0], out[1],
                                                                                                  out[2], out[3]};
  }
}

// y += weights · V over the chunk's own rows.
template <typename T, int kDim>
__device__ __forceinline__ void QueryKeysWide(const RetentionArgs<T>& args, const ChunkEntry& chunk, int head_kv,
                                              const float2* chunk_sums, int first_row, const float* queries,
                                              float* buffer, WideQuerySums<kDim>& sums) {
  using Tiles = WideQueryTiles<kDim>;
  constexpr int kUnits = kDim / 8;
  float* keys = buffer;
  float* values = keys + Tiles::kKeys * Tiles::kKeyStride;
  float* weights = values + Tiles::kKeys * kDim;
  const int last_row = min(first_row + Tiles::kRows, chunk.num_rows);
#pragma unroll 1
  for (int first_key = 0; first_key < last_row; first_key += Tiles::kKeys) {
    __syncthreads();  // all are done with the keys before
    for (int unit = threadIdx.x; unit < Tiles::kKeys * kUnits; unit += Tiles::kThreads) {
      const int row = unit / kUnits, column = unit % kUnits * 8;
      const bool is_valid = first_key + row < chunk.num_rows;
      const int64_t at = ((chunk.first_row + first_key + row) * args.heads_kv + head_kv) * kDim + column;
      WidenUnit(keys + row * Tiles::kKeyStride + column, is_valid ? args.K + at : nullptr);
      WidenUnit(values + row * kDim + column, is_valid ? args.V + at : nullptr);
    }
    __syncthreads();  // keys and values are there
    WeighKeysWide<T, kDim>(args, chunk_sums, first_row, first_key, chunk.num_rows, queries, keys, weights);
    __syncthreads();  // weights are there
#pragma unroll 4
    for (int key = 0; key < Tiles::kKeys; ++key) {
      float own[4];
      LoadFour(own, weights + key * Tiles::kRowStride + Tiles::Row());
#pragma unroll
      for (int r = 0; r < 4; ++r) sums.denominator[r] += own[r];
      sums.Add(own, values + key * kDim);
    }
  }
}

}  // namespace statehouse::kernels
