// Rows of 16-bit numbers folded into a state by products of tf32 numbers: v is one as it is, e^{…} φ(k) is rounded to
// one, eight times finer than bf16. z is summed in float32.
//
// A block takes one 8x8 tile (I, J) of pairs of one head: 64 rows of S, all d columns. A warp takes 16 rows, pairs (i,
// j) and (i + 1, j), and half the columns. Column n of product e stands for column n d/16 + e of the half, so that a
// lane owns neighbours of a row of S. Units of 16 bytes of v are permuted by the token so that no two lanes of an
// access meet in a bank.
//   shared: as WideFoldShared
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/fold_wide.cuh"
#include "kernels/power_retention/cuda/retention.h"
#include "kernels/power_retention/cuda/widen.cuh"

namespace statehouse::kernels {

template <int kDim>
struct Tf32FoldSums {
  static constexpr int kOwn = kDim / 16;  // products of a warp: 4 or 8
  static constexpr int kColumns = 2 * kOwn;
  float S[kOwn][4] = {};
  float z = 0;  // of row threadIdx % 64 of the tile, over a quarter of each batch

  // The first of the tile's rows that this lane has sums of; the other is 8 further. And its first column.
  static __device__ __forceinline__ int Row() { return threadIdx.x / 64 * 16 + threadIdx.x % 32 / 4; }
  static __device__ __forceinline__ int Column() {
    return threadIdx.x / 32 % 2 * (kDim / 2) + threadIdx.x % 4 * kColumns;
  }
  // Where 16-byte unit `unit` of a token's values lies, in floats.
  static __device__ __forceinline__ int Unit(int token, int unit) {
    const int flip = kOwn == 8 ? (token & 1) | (token & 2) << 1 : (token & 3) << 1;
    return (unit ^ flip) * 4;
  }

  // Adds a batch of rows.
  __device__ __forceinline__ void Add(const WideFoldShared<kDim>& shared) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, i = threadIdx.x / 64 * 2;
    const int first_unit = (threadIdx.x / 32 % 2 * (kDim / 2) + g * kOwn) / 4;
#pragma unroll 2
    for (int token = t; token < kWideFoldBatch; token += 8) {
      uint32_t a[4], b[2][kOwn];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = token + 4 * half;
        const float weighted = shared.weights[at] * shared.kj[at][g];
        const float2 ki = *reinterpret_cast<const float2*>(&shared.ki[at][i]);
        // Half a unit in the last place that counts, so that cutting off the rest rounds.
        a[2 * half] = __float_as_uint(ki.x * weighted) + 0x1000u;
        a[2 * half + 1] = __float_as_uint(ki.y * weighted) + 0x1000u;
#pragma unroll
        for (int e = 0; e < kOwn; e += 4)
          *reinterpret_cast<uint4*>(b[half] + e) =
              *reinterpret_cast<const uint4*>(shared.values[at] + Unit(at, first_unit + e / 4));
      }
#pragma unroll
      for (int e = 0; e < kOwn; ++e) MmaTf32(S[e], a, b[0][e], b[1][e]);
    }
    const int row = threadIdx.x % 64, first = threadIdx.x / 64 * (kWideFoldBatch / 4);
#pragma unroll 4
    for (int token = first; token < first + kWideFoldBatch / 4; ++token)
      z = fmaf(shared.weights[token] * shared.ki[token][row / 8], shared.kj[token][row % 8], z);
  }

  // The z sums of the tile's 64 rows, for threads 0 … 63. The block is done with `shared`, which it may overwrite.
  __device__ __forceinline__ float SumNormalizer(WideFoldShared<kDim>& shared) const {
    float* parts = shared.values[0];
    parts[threadIdx.x] = z;
    __syncthreads();  // all parts are there
    const int row = threadIdx.x % 64;
    return parts[row] + parts[row + 64] + parts[row + 128] + parts[row + 192];
  }

  // Sums of row Row() + 8 half from Column() on.
  __device__ __forceinline__ void Get(int half, float (&row)[kColumns]) const {
#pragma unroll
    for (int e = 0; e < kOwn; ++e) row[e] = S[e][2 * half], row[kOwn + e] = S[e][2 * half + 1];
  }
};

}  // namespace statehouse::kernels
