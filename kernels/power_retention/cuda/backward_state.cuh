// What a row's gradient takes from a chunk state, beside pairs within the chunk. With x a row of Q (K), u the same row
// of dY (V), S the state before the chunk (its gradient after it), z likewise:
//   dx_i = Σ_j (S_ij·u) x_j over both places of the pair, + the same with z     (GradientFromState)
//   dv   = Σ_ij x_i x_j S_ij                                                    (ValuesFromState)
// A product U Sᵀ of 16 rows with a tile of 64 pairs leaves, per row, an 8x8 matrix M over (i, j) in registers: lane
// (g, t) holds all i of columns j = 2t, 2t + 1 for rows g and g + 8. M x_J is summed over lanes once per I, xᵀ_I M is
// in place at once.
#pragma once

#include <cuda_runtime.h>

#include "kernels/power_retention/cuda/products.cuh"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

// z as a full symmetric matrix G with xᵀ G x = Σ z x x over the padded layout where tiles I < J count `factor` twice;
// in two numbers of T each: `high` [d][d], then `low`. A warp takes a tile of pairs at a time, a lane two of a row.
template <typename T, int kDim, int kThreads>
__device__ __forceinline__ void ExpandSymmetric(const float* z, float factor, char* high) {
  constexpr int kStride = kDim + 8, kLow = kDim * kStride * 2, kBlocks = kDim / 8;
  const int lane = threadIdx.x % 32, i = lane / 4, j = lane % 4 * 2;
  for (int tile = threadIdx.x / 32; tile < kBlocks * (kBlocks + 1) / 2; tile += kThreads / 32) {
    const TilePosition at = TileAt<kBlocks>(tile);
    float2 pair = *reinterpret_cast<const float2*>(z + tile * 64 + i * 8 + j);
    const bool is_diagonal = at.I == at.J;
    if (is_diagonal) {
      pair = {0.5f * (pair.x + z[tile * 64 + j * 8 + i]), 0.5f * (pair.y + z[tile * 64 + (j + 1) * 8 + i])};
    } else {
      pair = {factor * pair.x, factor * pair.y};
    }
    const uint32_t rounded = Pair<T>::Pack(pair.x, pair.y);
    const uint32_t rest = Pair<T>::Pack(pair.x - Pair<T>::Low(rounded), pair.y - Pair<T>::High(rounded));
    char* to = high + ((at.I * 8 + i) * kStride + at.J * 8 + j) * 2;
    *reinterpret_cast<uint32_t*>(to) = rounded;
    *reinterpret_cast<uint32_t*>(to + kLow) = rest;
    if (is_diagonal) continue;
    to = high + ((at.J * 8 + j) * kStride + at.I * 8 + i) * 2;
    *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(rounded);
    *reinterpret_cast<uint16_t*>(to + kStride * 2) = static_cast<uint16_t>(rounded >> 16);
    *reinterpret_cast<uint16_t*>(to + kLow) = static_cast<uint16_t>(rest);
    *reinterpret_cast<uint16_t*>(to + kLow + kStride * 2) = static_cast<uint16_t>(rest >> 16);
  }
}

// dx += factor (rows g, g + 8) · X G
template <typename T, int kDim>
__device__ __forceinline__ void GradientFromNormalizer(uint32_t x, const char* G, const float (&factor)[2],
                                                       float (&dx)[kDim / 8][4]) {
  constexpr int kStride = kDim + 8, kLow = kDim * kStride * 2;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int np = 0; np < kDim / 16; ++np) {
    float sums[2][4] = {};
#pragma unroll 1
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t a[4], b[4], b_low[4];
      const int at = ((np * 16 + lane / 16 * 8 + lane % 8) * kStride + k * 16 + lane / 8 % 2 * 8) * 2;
      LoadMatrices(b, SharedAddress(G + at));
      LoadMatrices(b_low, SharedAddress(G + kLow + at));
      LoadLeft(a, x, k);
      Mma<T>(sums[0], a, b[0], b[1]);
      Mma<T>(sums[1], a, b[2], b[3]);
      Mma<T>(sums[0], a, b_low[0], b_low[1]);
      Mma<T>(sums[1], a, b_low[2], b_low[3]);
    }
#pragma unroll
    for (int nt = 0; nt < 2; ++nt) {
#pragma unroll
      for (int r = 0; r < 4; ++r) dx[2 * np + nt][r] += factor[r / 2] * sums[nt][r];
    }
  }
}

// Sums over the four lanes of a row what each holds for i = 0 … 7; lane t is left with i = 2t and 2t + 1.
__device__ __forceinline__ void SumOverLanes(const float (&partial)[8][2], float (&out)[4]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float kept[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float mine = t & 2 ? partial[i + 4][half] : partial[i][half];
      const float sent = t & 2 ? partial[i][half] : partial[i + 4][half];
      kept[i] = mine + __shfl_xor_sync(0xffffffffu, sent, 2);
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float mine = t & 1 ? kept[e + 2] : kept[e];
      const float sent = t & 1 ? kept[e] : kept[e + 2];
      out[2 * half + e] = mine + __shfl_xor_sync(0xffffffffu, sent, 1);
    }
  }
}

// One tile: M = U Sᵀ, then both of its sums.
template <typename T, int kDim, bool kSm90, typename Tiles>
__device__ __forceinline__ void GradientFromTile(Tiles& tiles, int tile, uint32_t u, const uint32_t (&xj)[2],
                                                 const uint4 (&xi)[2], float (&partial)[8][2], float (&dxj)[4]) {
  const uint32_t at = tiles.Acquire(tile);
  float m[8][4];
  BeginProducts<kSm90>();
  MultiplyRows<T, kDim, kSm90>(m, u, at);
  CommitProducts<kSm90>();
  AwaitProducts<kSm90, 0>();
  PinProducts<kSm90>(m);
  tiles.Release(tile);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float low = Pair<T>::Low(xj[half]), high = Pair<T>::High(xj[half]);
    const uint32_t pairs[4] = {xi[half].x, xi[half].y, xi[half].z, xi[half].w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float x = i % 2 == 0 ? Pair<T>::Low(pairs[i / 2]) : Pair<T>::High(pairs[i / 2]);
      partial[i][half] = fmaf(m[i][2 * half], low, fmaf(m[i][2 * half + 1], high, partial[i][half]));
      dxj[2 * half] = fmaf(m[i][2 * half], x, dxj[2 * half]);
      dxj[2 * half + 1] = fmaf(m[i][2 * half + 1], x, dxj[2 * half + 1]);
    }
  }
}

// `x` and `u`: tiles of the warpgroup's 64 rows.
template <typename T, int kDim, bool kSm90, typename Tiles>
__device__ __forceinline__ void GradientFromState(Tiles& tiles, const char* x, const char* u,
                                                  float (&dx)[kDim / 8][4]) {
  constexpr int kBlocks = kDim / 8;
  const int row = LaneRow(), t = threadIdx.x % 4;
  int tile = 0;
#pragma unroll 1
  for (int I = 0; I < kBlocks; ++I) {
    const uint4 xi[2] = {*reinterpret_cast<const uint4*>(x + TileOffset(row, I * 8)),
                         *reinterpret_cast<const uint4*>(x + TileOffset(row + 8, I * 8))};
    float partial[8][2] = {};
#pragma unroll
    for (int J = 0; J < kBlocks; ++J) {  // unrolled, so that dx stays in registers
      if (J < I) continue;
      const uint32_t xj[2] = {*reinterpret_cast<const uint32_t*>(x + TileOffset(row, J * 8) + t * 4),
                              *reinterpret_cast<const uint32_t*>(x + TileOffset(row + 8, J * 8) + t * 4)};
      GradientFromTile<T, kDim, kSm90>(tiles, tile, SharedAddress(u), xj, xi, partial, dx[J]);
      ++tile;
    }
    float own[4];
    SumOverLanes(partial, own);
#pragma unroll
    for (int J = 0; J < kBlocks; ++J) {
#pragma unroll
      for (int r = 0; r < 4; ++r) dx[J][r] += J == I ? own[r] : 0.0f;
    }
  }
}

template <typename T, int kDim, bool kSm90, typename Tiles>
__device__ __forceinline__ void ValuesFromState(Tiles& tiles, const char* x, float (&dv)[kDim / 8][4]) {
  TilePosition at = {0, 0};
  const auto multiply = [&](int tile, uint32_t(&a)[4][4]) {
    const uint32_t buffer = tiles.Acquire(tile);
    ExpandRows<T>(x, at, a);
    if (++at.J == kDim / 8) at.J = ++at.I;
    BeginProducts<kSm90>();
#pragma unroll
    for (int s = 0; s < 4; ++s) SumOverRows<T, kSm90>(dv, a[s], buffer, s);
    CommitProducts<kSm90>();
    AwaitProducts<kSm90, 1>();  // the tile before is done with, and its φ(x) may be overwritten
    if (tile > 0) tiles.Release(tile - 1);
  };
  uint32_t even[4][4], odd[4][4];
#pragma unroll 1
  for (int tile = 0; tile < Tiles::kTiles; tile += 2) {
    multiply(tile, even);
    if (tile + 1 < Tiles::kTiles) multiply(tile + 1, odd);
  }
  AwaitProducts<kSm90, 0>();
  PinProducts<kSm90>(dv);
}

}  // namespace statehouse::kernels
