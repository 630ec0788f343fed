// What a warp does with rows of a state: φ(q)ᵀ S and φ(q)ᵀ z for 16 rows, as matrix products in steps of 8 rows of S
// (float32, as tf32 numbers) or of 16 (bf16, and int8 brought to bf16, against φ(q), times the rows' scale if there is
// one, as two bf16 numbers).
//
// Row k of a product stands for row t, t + 4 (, t + 8, t + 12) of the step, with t = lane mod 4, and column n of
// product e for column n d/8 + e of S, so that a lane's numbers lie side by side; units of 16 bytes are permuted by the
// row so that the lanes of one access meet in no bank.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/decode_args.cuh"
#include "kernels/power_retention/cuda/retention.h"
#include "kernels/power_retention/cuda/state_elements.cuh"
#include "kernels/power_retention/cuda/widen.cuh"

namespace statehouse::kernels {

template <typename S, int kDim>
struct DecodeTiles {
  static constexpr int kBlocks = kDim / 8;
  static constexpr int kTiles = kBlocks * (kBlocks + 1) / 2;
  static constexpr int kQueryStride = kDim + 4;
  static constexpr int kQueryBytes = kDecodeRows * kQueryStride * 4;

  static constexpr int kRowBytes = kDim * static_cast<int>(sizeof(S));
  static constexpr int kUnits = kRowBytes / 16;                                     // of a row
  static constexpr int kStageRows = kRowBytes * 64 > 4096 ? 4096 / kRowBytes : 64;  // of one tile
  static constexpr int kStepRows = sizeof(S) == 4 ? 8 : 16;
  static constexpr int kStagesPerTile = 64 / kStageRows;
  static constexpr int kTotalStages = kTiles * kStagesPerTile;  // of a head
  static constexpr int kRing = 3;                               // stages of a warp in shared memory
  static constexpr int kStateBytes = kStageRows * kRowBytes;
  static constexpr int kScaleBytes = sizeof(S) == 1 ? kStageRows / kScaleRows * 2 : 0;  // 8 or 16
  static constexpr int kStageBytes = kStateBytes + kStageRows * 4 + (kScaleBytes + 15) / 16 * 16;
  static constexpr int kRingBytes = kRing * kStageBytes;

  static constexpr int kOwn = kDim / 8;  // columns of one lane (g)
  static constexpr int kPiece = kOwn < 16 / static_cast<int>(sizeof(S)) ? kOwn : 16 / static_cast<int>(sizeof(S));
  static constexpr int kPieces = kOwn / kPiece;  // accesses of at most 16 bytes per row

  // The warps' sums: column n d/8 + e at n (d/8 + 4) + e, so that stores meet in no bank; the denominator behind them.
  static constexpr int kSumPitch = kOwn + 4;
  static constexpr int kSumStride = 8 * kSumPitch + 4;
  static constexpr int kSumBytes = kDecodeWarps * kDecodeRows * kSumStride * 4;
  static constexpr int kSharedBytes =
      kQueryBytes + (kDecodeWarps * kRingBytes > kSumBytes ? kDecodeWarps * kRingBytes : kSumBytes);

  // Where 16-byte unit `unit` of a row lies.
  static __device__ __forceinline__ int Unit(int row, int unit) {
    int flip = 0;
    if constexpr (kPieces == 4) flip = row & 3;
    if constexpr (kPieces == 2) flip = (row & 1) | (row & 2) << 1;
    if constexpr (kPieces == 1 && kUnits == 8) flip = (row & 3) << 1;
    return row * kRowBytes + (unit ^ flip) * 16;
  }
};

__device__ __forceinline__ uint32_t Tf32High(float x) { return __float_as_uint(x) & 0xffffe000u; }

// What a warp adds up over the state.
template <int kDim>
struct DecodeSums {
  float y[kDim / 8][4] = {};
  float denominator[2] = {};  // rows g and g + 8, of this lane's rows of S only
};

// `bytes` 4, 8 or 16 from shared memory.
template <int kWords>
__device__ __forceinline__ void LoadWords(uint32_t (&words)[kWords], const char* at) {
  if constexpr (kWords == 4) {
    *reinterpret_cast<uint4*>(words) = *reinterpret_cast<const uint4*>(at);
  } else if constexpr (kWords == 2) {
    *reinterpret_cast<uint2*>(words) = *reinterpret_cast<const uint2*>(at);
  } else {
    static_assert(kWords == 1);
    words[0] = *reinterpret_cast<const uint32_t*>(at);
  }
}

// This lane's columns of one row of a stage, piece `piece`.
template <typename S, int kDim, int kWords>
__device__ __forceinline__ void LoadPiece(uint32_t (&words)[kWords], const char* stage, int row, int piece) {
  using Tiles = DecodeTiles<S, kDim>;
  const int g = threadIdx.x % 32 / 4;
  if constexpr (kWords == 4) {
    LoadWords(words, stage + Tiles::Unit(row, g * Tiles::kPieces + piece));
  } else if constexpr (Tiles::kPiece * sizeof(S) == 2) {
    words[0] = *reinterpret_cast<const uint16_t*>(stage + row * Tiles::kRowBytes + g * 2);
  } else {
    LoadWords(words, stage + row * Tiles::kRowBytes + g * kWords * 4);
  }
}

// q of the lane's rows g and g + 8, for one tile: q_i times the multiplicity of the tile's pairs.
template <typename S, int kDim>
struct StepQueries {
  static constexpr int kLower = 8 * DecodeTiles<S, kDim>::kQueryStride;
  const float* qi;
  const float* qj;
  float factor;

  __device__ __forceinline__ StepQueries(const float* queries, TilePosition at) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    qi = queries + g * DecodeTiles<S, kDim>::kQueryStride + at.I * 8;
    qj = queries + g * DecodeTiles<S, kDim>::kQueryStride + at.J * 8 + t;
    factor = at.I < at.J ? 2.0f : 1.0f;
  }
  // φ of rows g and g + 8 for pairs (i, t) and (i, t + 4) of the tile.
  __device__ __forceinline__ float4 Pairs(int i) const {
    const float upper = factor * qi[i], lower = factor * qi[kLower + i];
    return {upper * qj[0], lower * qj[kLower], upper * qj[4], lower * qj[kLower + 4]};
  }
};

__device__ __forceinline__ uint32_t Tf32Rest(float x, uint32_t high) {
  return __float_as_uint(x - __uint_as_float(high));
}

// The tf32 number nearest to x, in a product, which ignores the bits behind.
__device__ __forceinline__ uint32_t Tf32Nearest(float x) { return __float_as_uint(x) + 0x1000u; }

// 8 rows of a float32 state, `row` being the stage's first of them and i the tile's row of pairs. kIsExact: three
// products of tf32 numbers, the precision of float32; else one, which is finer than what is made of it, a bf16 number,
// by a factor of 8.
template <bool kIsExact, int kDim>
__device__ __forceinline__ void DecodeStep(const StepQueries<float, kDim>& queries, const char* stage, int row, int i,
                                           DecodeSums<kDim>& sums) {
  using Tiles = DecodeTiles<float, kDim>;
  const int t = threadIdx.x % 4;
  const float4 phi = queries.Pairs(i);
  const float* z = reinterpret_cast<const float*>(stage + Tiles::kStateBytes) + row;
  const float z0 = z[t], z1 = z[t + 4];
  sums.denominator[0] += phi.x * z0 + phi.z * z1;
  sums.denominator[1] += phi.y * z0 + phi.w * z1;
  uint32_t a[4], a_rest[4];
  const float phis[4] = {phi.x, phi.y, phi.z, phi.w};
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    a[r] = kIsExact ? Tf32High(phis[r]) : Tf32Nearest(phis[r]);
    a_rest[r] = Tf32Rest(phis[r], a[r]);
  }
#pragma unroll
  for (int piece = 0; piece < Tiles::kPieces; ++piece) {
    uint32_t low[Tiles::kPiece], high[Tiles::kPiece];
    LoadPiece<float, kDim>(low, stage, row + t, piece);
    LoadPiece<float, kDim>(high, stage, row + t + 4, piece);
    // One kind of product after the other: those of one sum would wait for each other.
#pragma unroll
    for (int kind = 0; kind < (kIsExact ? 3 : 1); ++kind) {
#pragma unroll
      for (int e = 0; e < Tiles::kPiece; ++e) {
        const float s0 = __uint_as_float(low[e]), s1 = __uint_as_float(high[e]);
        const uint32_t b0 = kIsExact ? Tf32High(s0) : Tf32Nearest(s0), b1 = kIsExact ? Tf32High(s1) : Tf32Nearest(s1);
        float(&sum)[4] = sums.y[piece * Tiles::kPiece + e];
        if (kind == 0) MmaTf32(sum, a, b0, b1);
        if (kind == 1) MmaTf32(sum, a_rest, b0, b1);
        if (kind == 2) MmaTf32(sum, a, Tf32Rest(s0, b0), Tf32Rest(s1, b1));
      }
    }
  }
}

// 16 rows of a bf16 state: pairs of rows i and i + 1 of the tile.
template <bool kIsExact, int kDim>
__device__ __forceinline__ void DecodeStep(const StepQueries<bf16, kDim>& queries, const char* stage, int row, int i,
                                           DecodeSums<kDim>& sums) {
  using Tiles = DecodeTiles<bf16, kDim>;
  constexpr int kWords = Tiles::kPiece / 2;
  const int t = threadIdx.x % 4;
  const float4 phi[2] = {queries.Pairs(i), queries.Pairs(i + 1)};
  const float* z = reinterpret_cast<const float*>(stage + Tiles::kStateBytes) + row + t;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float z0 = z[half * 8], z1 = z[half * 8 + 4];
    sums.denominator[0] += phi[half].x * z0 + phi[half].z * z1;
    sums.denominator[1] += phi[half].y * z0 + phi[half].w * z1;
  }
  uint32_t a[4], a_rest[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const float4 p = phi[r / 2];
    const float x = r % 2 == 0 ? p.x : p.y, y = r % 2 == 0 ? p.z : p.w;
    a[r] = Pair<bf16>::Pack(x, y);
    a_rest[r] = Pair<bf16>::Pack(x - Pair<bf16>::Low(a[r]), y - Pair<bf16>::High(a[r]));
  }
#pragma unroll
  for (int piece = 0; piece < Tiles::kPieces; ++piece) {
    uint32_t rows[4][kWords];
#pragma unroll
    for (int q = 0; q < 4; ++q) LoadPiece<bf16, kDim>(rows[q], stage, row + t + 4 * q, piece);
    // Four sums at a time: one kind of product after the other, so that a sum does not wait for itself.
    constexpr int kTogether = Tiles::kPiece < 4 ? Tiles::kPiece : 4;
#pragma unroll
    for (int first = 0; first < Tiles::kPiece; first += kTogether) {
      uint32_t b[kTogether][2];
#pragma unroll
      for (int e = 0; e < kTogether; ++e) {
        const int word = (first + e) / 2, select = e % 2 == 0 ? 0x5410 : 0x7632;
        b[e][0] = __byte_perm(rows[0][word], rows[1][word], select);
        b[e][1] = __byte_perm(rows[2][word], rows[3][word], select);
        Mma<bf16>(sums.y[piece * Tiles::kPiece + first + e], a, b[e][0], b[e][1]);
      }
#pragma unroll
      for (int e = 0; e < kTogether; ++e)
        Mma<bf16>(sums.y[piece * Tiles::kPiece + first + e], a_rest, b[e][0], b[e][1]);
    }
  }
}

// kBytes, 8 or 16, to shared memory.
template <int kBytes>
__device__ __forceinline__ void CopyAsync(uint32_t shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared), "l"(global), "n"(kBytes) : "memory");
}

// Integers of 8 bits as bf16 numbers, exactly: byte `e` of either word. 0x4300 is 128, of which a bf16 number counts
// ones; 0x4380 is 256.
__device__ __forceinline__ uint32_t WidenBytes(uint32_t first, uint32_t second, int e) {
  const uint32_t pair = __byte_perm(first, second, e | (4 + e) << 8);  // each in the low byte of 16 bits
  const uint32_t value = (pair & 0x007f007fu) | 0x43004300u, bias = (pair & 0x00800080u) | 0x43004300u;
  const __nv_bfloat162 out =
      __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&value), *reinterpret_cast<const __nv_bfloat162*>(&bias));
  return *reinterpret_cast<const uint32_t*>(&out);
}

// 16 rows of an int8 state: pairs of rows i and i + 1 of the tile, each with its scale. kIsExact: φ(q) as two bf16
// numbers; else one, as fine as the rows are.
template <bool kIsExact, int kDim>
__device__ __forceinline__ void DecodeStep(const StepQueries<int8_t, kDim>& queries, const char* stage, int row, int i,
                                           DecodeSums<kDim>& sums) {
  using Tiles = DecodeTiles<int8_t, kDim>;
  constexpr int kWords = (Tiles::kPiece + 3) / 4;
  static_assert(Tiles::kPieces == 1);
  const int t = threadIdx.x % 4;
  const float4 phi[2] = {queries.Pairs(i), queries.Pairs(i + 1)};
  const float* z = reinterpret_cast<const float*>(stage + Tiles::kStateBytes) + row + t;
  const bf16* scales = reinterpret_cast<const bf16*>(stage + Tiles::kStateBytes + Tiles::kStageRows * 4) + row / 8;
  uint32_t a[4], a_rest[4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float z0 = z[half * 8], z1 = z[half * 8 + 4], scale = __bfloat162float(scales[half]);
    const float4 p = phi[half];
    sums.denominator[0] += p.x * z0 + p.z * z1;
    sums.denominator[1] += p.y * z0 + p.w * z1;
    const float x[2] = {scale * p.x, scale * p.y}, y[2] = {scale * p.z, scale * p.w};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      a[2 * half + r] = Pair<bf16>::Pack(x[r], y[r]);
      a_rest[2 * half + r] =
          Pair<bf16>::Pack(x[r] - Pair<bf16>::Low(a[2 * half + r]), y[r] - Pair<bf16>::High(a[2 * half + r]));
    }
  }
  uint32_t rows[4][kWords];
#pragma unroll
  for (int q = 0; q < 4; ++q) LoadPiece<int8_t, kDim>(rows[q], stage, row + t + 4 * q, 0);
  // As above: four sums at a time.
  constexpr int kTogether = Tiles::kPiece < 4 ? Tiles::kPiece : 4;
#pragma unroll
  for (int first = 0; first < Tiles::kPiece; first += kTogether) {
    uint32_t b[kTogether][2];
#pragma unroll
    for (int e = 0; e < kTogether; ++e) {
      b[e][0] = WidenBytes(rows[0][first / 4], rows[1][first / 4], e);
      b[e][1] = WidenBytes(rows[2][first / 4], rows[3][first / 4], e);
      Mma<bf16>(sums.y[first + e], a, b[e][0], b[e][1]);
    }
    if constexpr (kIsExact) {
#pragma unroll
      for (int e = 0; e < kTogether; ++e) Mma<bf16>(sums.y[first + e], a_rest, b[e][0], b[e][1]);
    }
  }
}

}  // namespace statehouse::kernels
