// States of degree 4, for d <= 32: one row for each product x_i x_j x_k x_l, i <= j <= k <= l, in lexicographic order,
// as files have them. S and z hold each row as often as it occurs in (Σ x)⁴; φ of a query is the product alone.
//
// Float32 arithmetic on the ordinary units, a tile of 64 rows of the state at a time.
#pragma once

#include <cuda_runtime.h>

#include "kernels/power_retention/cuda/gradient_state_wide.cuh"
#include "kernels/power_retention/cuda/query_wide.cuh"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

inline constexpr int kFourthTile = 64;  // rows of the state

template <int kDim>
inline constexpr int kFourthRows = static_cast<int>(RetentionStateRows(kDim, 4));
template <int kDim>
inline constexpr int kFourthTiles = (kFourthRows<kDim> + kFourthTile - 1) / kFourthTile;

struct Fourth {
  uchar4 at;    // i, j, k, l
  float count;  // how often it occurs
};

// The row's product. REQUIRES: 0 <= row < kFourthRows.
template <int kDim>
__device__ __forceinline__ Fourth FourthAt(int row) {
  int left = kDim, i = 0;  // variables from i on
  for (; row >= left * (left + 1) * (left + 2) / 6; ++i) {
    row -= left * (left + 1) * (left + 2) / 6;
    --left;
  }
  int j = i;
  for (; row >= left * (left + 1) / 2; ++j) {
    row -= left * (left + 1) / 2;
    --left;
  }
  int k = j;
  for (; row >= left; ++k) row -= left--;
  const int l = k + row, equal = (i == j) + (j == k) + (k == l);
  const float count = equal == 0 ? 24 : equal == 1 ? 12 : equal == 3 ? 1 : j == k ? 4 : 6;
  return {make_uchar4(i, j, k, l), count};
}

// A tile's products, and z of its rows times what they count; past the last row all is 0.
struct FourthShared {
  uchar4 at[kFourthTile];
  float count[kFourthTile];
  float z[kFourthTile];
};
// kCounts: S and z are multiplied by how often a row occurs, as gradients of keys and values want them.
template <int kDim, bool kCounts>
__device__ __forceinline__ void LoadFourthTile(const float* state, const float* z, int first, int stride, float* tile,
                                               FourthShared& shared) {
  if (threadIdx.x < kFourthTile) {
    const int row = first + static_cast<int>(threadIdx.x);
    const bool is_valid = row < kFourthRows<kDim>;
    const Fourth fourth = is_valid ? FourthAt<kDim>(row) : Fourth{};
    shared.at[threadIdx.x] = fourth.at;
    shared.count[threadIdx.x] = kCounts ? fourth.count : 1.0f;
    shared.z[threadIdx.x] = is_valid ? (kCounts ? fourth.count : 1.0f) * z[row] : 0.0f;
  }
  __syncthreads();  // counts are there
  for (int unit = threadIdx.x; unit < kFourthTile * kDim / 4; unit += WideQueryTiles<kDim>::kThreads) {
    const int row = unit / (kDim / 4), column = unit % (kDim / 4) * 4;
    float4 x = {};
    if (first + row < kFourthRows<kDim>) x = reinterpret_cast<const float4*>(state)[(int64_t{first} * kDim) / 4 + unit];
    const float count = shared.count[row];
    *reinterpret_cast<float4*>(tile + row * stride + column) = {count * x.x, count * x.y, count * x.z, count * x.w};
  }
}

// Four rows' element i of `rows` [d][kRowStride], times what is there.
template <int kDim>
__device__ __forceinline__ void TimesElement(const float* rows, int i, float (&product)[4]) {
  float x[4];
  LoadFour(x, rows + i * WideQueryTiles<kDim>::kRowStride);
#pragma unroll
  for (int r = 0; r < 4; ++r) product[r] *= x[r];
}

// y += φ(x)ᵀ S, and z; `rows`: as QueryStateWide().
template <int kDim, bool kCounts>
__device__ __forceinline__ void QueryStateFourth(const float* rows, float* tile, const float* state, const float* z,
                                                 FourthShared& shared, WideQuerySums<kDim>& sums) {
  const float* own = rows + WideQueryTiles<kDim>::Row();
#pragma unroll 1
  for (int first = 0; first < kFourthRows<kDim>; first += kFourthTile) {
    __syncthreads();  // all are done with the tile before
    LoadFourthTile<kDim, kCounts>(state, z, first, kDim, tile, shared);
    __syncthreads();  // the tile is there
#pragma unroll 2
    for (int row = 0; row < kFourthTile; ++row) {
      const uchar4 at = shared.at[row];
      float phi[4];
      LoadFour(phi, own + at.x * WideQueryTiles<kDim>::kRowStride);
      TimesElement<kDim>(own, at.y, phi);
      TimesElement<kDim>(own, at.z, phi);
      TimesElement<kDim>(own, at.w, phi);
#pragma unroll
      for (int r = 0; r < 4; ++r) sums.denominator[r] = fmaf(phi[r], shared.z[row], sums.denominator[r]);
      sums.Add(phi, tile + row * kDim);
    }
  }
}

// dx += m times the derivative of each of the tile's products, for this thread's rows and columns.
template <int kDim>
__device__ __forceinline__ void AddFourthTile(const float* rows, const float* m, const FourthShared& shared,
                                              WideQuerySums<kDim>& dx) {
  using Query = WideQueryTiles<kDim>;
  const float* own = rows + Query::Row();
#pragma unroll
  for (int vector = 0; vector < Query::kVectors; ++vector) {
#pragma unroll
    for (int c = 0; c < Query::kVector; ++c) {
      const int column = Query::Column(vector) + c;
#pragma unroll 1
      for (int row = 0; row < kFourthTile; ++row) {
        const uchar4 at = shared.at[row];
        const int index[4] = {at.x, at.y, at.z, at.w};
#pragma unroll
        for (int out = 0; out < 4; ++out) {  // the factor that is left out
          if (index[out] != column) continue;
          float product[4];
          LoadFour(product, m + row * Query::kRowStride + Query::Row());
#pragma unroll
          for (int in = 0; in < 4; ++in) {
            if (in != out) TimesElement<kDim>(own, index[in], product);
          }
#pragma unroll
          for (int r = 0; r < 4; ++r) dx.y[r][vector][c] += product[r];
        }
      }
    }
  }
}

// As GradientFromStateWide(): dx += Σ (S·u + weight z) ∂φ(x), over all rows of the state.
template <int kDim, bool kCounts>
__device__ __forceinline__ void GradientFromStateFourth(const float* x, const float* u, float* buffer,
                                                        const float* state, const float* z, const float (&z_weights)[4],
                                                        FourthShared& shared, WideQuerySums<kDim>& dx) {
  using Tiles = WideGradientTiles<kDim>;
  static_assert(kFourthTile == 64);  // MultiplyTileWide()'s
  float* tile = buffer;
  float* m = tile + 64 * Tiles::kOtherStride + 64;
#pragma unroll 1
  for (int first = 0; first < kFourthRows<kDim>; first += kFourthTile) {
    __syncthreads();  // all are done with the tile before
    LoadFourthTile<kDim, kCounts>(state, z, first, Tiles::kOtherStride, tile, shared);
    __syncthreads();  // the tile is there
    MultiplyTileWide<kDim>(u, tile, shared.z, 1.0f, z_weights, m);
    __syncthreads();  // the product is there
    AddFourthTile<kDim>(x, m, shared, dx);
  }
}

}  // namespace statehouse::kernels
