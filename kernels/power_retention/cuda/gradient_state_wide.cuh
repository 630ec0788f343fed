// What a row's gradient takes from a chunk state, in float32 without tensor cores. With x a row of Q (K), u the same
// row of dY (V), S the state before the chunk (its gradient after it), z likewise:
//   dx_i += Σ_j (S_ij·u + weight z_ij) x_j over both places of the pair
// Per tile of 64 pairs a product of 64 rows with the tile, then the sums over its 8x8 places.
//   shared: xᵀ [d][68], uᵀ [d][68]; a tile of S [64][d + 4], of z [64], the product [64][68]
#pragma once

#include <cuda_runtime.h>

#include "kernels/power_retention/cuda/query_wide.cuh"

namespace statehouse::kernels {

template <int kDim>
struct WideGradientTiles {
  using Query = WideQueryTiles<kDim>;  // the same rows and columns per thread
  static constexpr int kThreads = Query::kThreads;
  static constexpr int kRows = Query::kRows;  // of a block
  static constexpr int kOthers = 32;
  static constexpr int kRowStride = Query::kRowStride, kOtherStride = kDim + 4;
  static constexpr int kStateFloats = 64 * kOtherStride + 64 + 64 * kRowStride;
  static constexpr int kPairFloats = 2 * kOthers * (kOtherStride + kRowStride);
  static constexpr int kBufferFloats = kStateFloats > kPairFloats ? kStateFloats : kPairFloats;
  static constexpr int kSharedBytes = 4 * (2 * kDim * kRowStride + kBufferFloats);
};

// m[pair][row] = S_pair·u_row + z_weights[row] z_pair for the tile's pairs; a thread takes 4 rows and 4 pairs.
template <int kDim>
__device__ __forceinline__ void MultiplyTileWide(const float* u, const float* tile, const float* z, float z_factor,
                                                 const float (&z_weights)[4], float* m) {
  using Tiles = WideGradientTiles<kDim>;
  const int own = threadIdx.x % 16;  // pairs own, own + 16, …
  float sums[4][4] = {};
#pragma unroll 1
  for (int c = 0; c < kDim; c += 4) {
    float pairs[4][4];
#pragma unroll
    for (int p = 0; p < 4; ++p) LoadFour(pairs[p], tile + (own + 16 * p) * Tiles::kOtherStride + c);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float row[4];
      LoadFour(row, u + (c + e) * Tiles::kRowStride + Tiles::Query::Row());
#pragma unroll
      for (int p = 0; p < 4; ++p) {
#pragma unroll
        for (int r = 0; r < 4; ++r) sums[p][r] = fmaf(row[r], pairs[p][e], sums[p][r]);
      }
    }
  }
#pragma unroll
  for (int p = 0; p < 4; ++p) {
    const float z_value = z_factor * z[own + 16 * p];
    *reinterpret_cast<float4*>(m + (own + 16 * p) * Tiles::kRowStride + Tiles::Query::Row()) = {
        fmaf(z_weights[0], z_value, sums[p][0]), fmaf(z_weights[1], z_value, sums[p][1]),
        fmaf(z_weights[2], z_value, sums[p][2]), fmaf(z_weights[3], z_value, sums[p][3])};
  }
}

// dx_I += M x_J (`transposed`: dx_J += Mᵀ x_I) for threads that have columns there.
template <int kDim, bool kTransposed>
__device__ __forceinline__ void AddTileWide(const float* x, const float* m, int to, int from, WideQuerySums<kDim>& dx) {
  using Tiles = WideGradientTiles<kDim>;
  using Query = typename Tiles::Query;
#pragma unroll
  for (int vector = 0; vector < Query::kVectors; ++vector) {
    const int column = Query::Column(vector);
    if (column / 8 != to) continue;
#pragma unroll 2
    for (int other = 0; other < 8; ++other) {
      float x_other[4];
      LoadFour(x_other, x + (from * 8 + other) * Tiles::kRowStride + Query::Row());
#pragma unroll
      for (int c = 0; c < Query::kVector; ++c) {
        const int own = column % 8 + c, pair = kTransposed ? other * 8 + own : own * 8 + other;
        float product[4];
        LoadFour(product, m + pair * Tiles::kRowStride + Query::Row());
#pragma unroll
        for (int r = 0; r < 4; ++r) dx.y[r][vector][c] = fmaf(product[r], x_other[r], dx.y[r][vector][c]);
      }
    }
  }
}

// `z_factor`: what z of a tile I < J lacks of its multiplicity. REQUIRES: x and u are there.
template <int kDim>
__device__ __forceinline__ void GradientFromStateWide(const float* x, const float* u, float* buffer, const float* state,
                                                      const float* z, const float (&z_weights)[4], float z_factor,
                                                      WideQuerySums<kDim>& dx) {
  using Tiles = WideGradientTiles<kDim>;
  float* tile = buffer;
  float* z_tile = tile + 64 * Tiles::kOtherStride;
  float* m = z_tile + 64;
  int index = 0;
#pragma unroll 1
  for (int I = 0; I < kDim / 8; ++I) {
#pragma unroll 1
    for (int J = I; J < kDim / 8; ++J, ++index) {
      __syncthreads();  // all are done with the tile before
      ForEach<16 * kDim, Tiles::kThreads>([&](int unit) {
        const int row = unit / (kDim / 4), column = unit % (kDim / 4) * 4;
        *reinterpret_cast<float4*>(tile + row * Tiles::kOtherStride + column) =
            reinterpret_cast<const float4*>(state + int64_t{index} * 64 * kDim)[unit];
      });
      if (threadIdx.x < 64) z_tile[threadIdx.x] = z[index * 64 + threadIdx.x];
      __syncthreads();  // the tile is there
      MultiplyTileWide<kDim>(u, tile, z_tile, I < J ? z_factor : 1.0f, z_weights, m);
      __syncthreads();  // the product is there
      AddTileWide<kDim, false>(x, m, I, J, dx);
      AddTileWide<kDim, true>(x, m, J, I, dx);
    }
  }
}

}  // namespace statehouse::kernels
