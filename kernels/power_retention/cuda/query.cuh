// The rows of one block of one query head:
//   y = (e^L σ² φ(q)ᵀ S + Σ_j (σ q·k_j)² e^{L - L_j} v_j) / (the same with z and 1)
// first the state before the chunk, then the chunk's own rows up to the diagonal.
//
// A warp owns 32 rows and all d columns. φ(q) is formed in registers, one 8x8 tile (I, J) of pairs at a time: q_J as
// fragments, q_I repeated over pairs of columns. q·z is Q Z with Z as a full matrix, then a row-wise product with q.
//   shared: Q [128][d], four buffers [64][d] in turn for Z (two numbers of T each), tiles of S, and K and V
#pragma once

#include <cuda_runtime.h>

#include <cfloat>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

template <int kDim>
struct QueryTiles {
  static constexpr int kBlocks = kDim / 8;
  static constexpr int kTiles = kBlocks * (kBlocks + 1) / 2;
  static constexpr int kWarps = kBlockRows / 32;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kStride = kDim + 8;  // elements of a row in shared memory: 8 rows' units lie in different banks
  static constexpr int kStages = 4;
  static constexpr int kSpan = 32;  // keys that a warp scores at a time: 32 registers beside 2 x d/8 x 4 of y
  static constexpr int kBufferBytes = 64 * kStride * 2;
  static constexpr int kQueryBytes = kBlockRows * kStride * 2;
  static constexpr int kSharedBytes = kQueryBytes + kStages * kBufferBytes;
};

// What a warp sums: m16 tiles 0 and 1 of its rows.
template <int kDim>
struct QuerySums {
  float y[2][kDim / 8][4] = {};
  float denominator[2][2] = {};  // rows g and g + 8; of this lane's columns only
};

// 64 rows of d elements into a buffer; rows from `valid` on are zero.
template <typename T, int kDim, int kRows, int kThreads>
__device__ __forceinline__ void LoadRows(uint32_t buffer, const T* rows, int64_t row_stride, int valid) {
  constexpr int kUnits = kDim / 8;
  ForEach<kRows * kUnits, kThreads>([&](int unit) {
    const int row = unit / kUnits, column = unit % kUnits;
    const bool is_valid = row < valid;
    CopyAsync16(buffer + row * (kDim + 8) * 2 + column * 16, rows + (is_valid ? row * row_stride + column * 8 : 0),
                is_valid);
  });
}

// Z as a full matrix, in two numbers of T each: `high` [d][d], then `low`.
template <typename T, int kDim, int kThreads = QueryTiles<kDim>::kThreads>
__device__ __forceinline__ void ExpandNormalizer(const float* z, char* high) {
  using Tiles = QueryTiles<kDim>;
  constexpr int kLow = kDim * Tiles::kStride * 2;
  ForEach<kDim * kDim / 2, kThreads>([&](int pair) {
    const int i = pair / (kDim / 2), j = pair % (kDim / 2) * 2;
    const bool is_upper = i / 8 <= j / 8;
    const float a = z[is_upper ? RetentionStateRow(i, j, kDim) : RetentionStateRow(j, i, kDim)];
    const float b = z[is_upper ? RetentionStateRow(i, j + 1, kDim) : RetentionStateRow(j + 1, i, kDim)];
    const uint32_t rounded = Pair<T>::Pack(a, b);
    const int at = (i * Tiles::kStride + j) * 2;
    *reinterpret_cast<uint32_t*>(high + at) = rounded;
    *reinterpret_cast<uint32_t*>(high + kLow + at) =
        Pair<T>::Pack(a - Pair<T>::Low(rounded), b - Pair<T>::High(rounded));
  });
}

// denominator += qᵀ Z q
template <typename T, int kDim>
__device__ __forceinline__ void QueryNormalizer(const char* queries, const char* z, QuerySums<kDim>& sums) {
  using Tiles = QueryTiles<kDim>;
  constexpr int kLow = kDim * Tiles::kStride * 2;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll 1
  for (int np = 0; np < kDim / 16; ++np) {
    float qz[2][2][4] = {};
#pragma unroll 1
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t b[4], b_low[4];
      const int at = ((np * 16 + lane / 16 * 8 + lane % 8) * Tiles::kStride + k * 16 + lane / 8 % 2 * 8) * 2;
      LoadMatrices(b, SharedAddress(z + at));
      LoadMatrices(b_low, SharedAddress(z + kLow + at));
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        uint32_t a[4];
        LoadMatrices(
            a,
            SharedAddress(queries + ((warp * 32 + m * 16 + lane % 16) * Tiles::kStride + k * 16 + lane / 16 * 8) * 2));
        Mma<T>(qz[m][0], a, b[0], b[1]);
        Mma<T>(qz[m][1], a, b[2], b[3]);
        Mma<T>(qz[m][0], a, b_low[0], b_low[1]);
        Mma<T>(qz[m][1], a, b_low[2], b_low[3]);
      }
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int nt = 0; nt < 2; ++nt) {
          const int row = warp * 32 + m * 16 + half * 8 + g, column = np * 16 + nt * 8 + t * 2;
          const uint32_t q = *reinterpret_cast<const uint32_t*>(queries + (row * Tiles::kStride + column) * 2);
          sums.denominator[m][half] +=
              qz[m][nt][2 * half] * Pair<T>::Low(q) + qz[m][nt][2 * half + 1] * Pair<T>::High(q);
        }
      }
    }
  }
}

// y += φ(q)ᵀ S for the pairs of one tile.
template <typename T, int kDim>
__device__ __forceinline__ void QueryTile(const char* queries, const char* state, const uint4 (&qi)[4], int J,
                                          QuerySums<kDim>& sums) {
  using Tiles = QueryTiles<kDim>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint32_t qj[4];
  LoadMatrices(qj, SharedAddress(queries + ((warp * 32 + lane) * Tiles::kStride + J * 8) * 2));
  const uint32_t base = SharedAddress(state + (lane % 16 * Tiles::kStride + lane / 16 * 8) * 2);
#pragma unroll
  for (int s = 0; s < 4; ++s) {  // pairs (8I + 2s, j) and (8I + 2s + 1, j)
    uint32_t a[2][4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const uint32_t q = s == 0 ? qi[r].x : s == 1 ? qi[r].y : s == 2 ? qi[r].z : qi[r].w;
      a[r / 2][r % 2] = Pair<T>::Multiply(RepeatLow(q), qj[r]);
      a[r / 2][r % 2 + 2] = Pair<T>::Multiply(RepeatHigh(q), qj[r]);
    }
#pragma unroll
    for (int np = 0; np < kDim / 16; ++np) {
      uint32_t b[4];
      LoadMatricesTransposed(b, base + (s * 16 * Tiles::kStride + np * 16) * 2);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        Mma<T>(sums.y[m][2 * np], a[m], b[0], b[1]);
        Mma<T>(sums.y[m][2 * np + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// y += φ(q)ᵀ S
template <typename T, int kDim>
__device__ __forceinline__ void QueryState(const char* queries, char* buffers, const T* state, QuerySums<kDim>& sums) {
  using Tiles = QueryTiles<kDim>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4;
  const auto load = [&](int tile) {
    if (tile < Tiles::kTiles) {
      LoadRows<T, kDim, 64, Tiles::kThreads>(SharedAddress(buffers) + tile % Tiles::kStages * Tiles::kBufferBytes,
                                             state + tile * 64 * kDim, kDim, 64);
    }
    CopyCommit();
  };
#pragma unroll
  for (int s = 0; s < Tiles::kStages - 1; ++s) load(s);
  int tile = 0;
  for (int I = 0; I < Tiles::kBlocks; ++I) {
    uint4 qi[4];
#pragma unroll
    for (int r = 0; r < 4; ++r)
      qi[r] = *reinterpret_cast<const uint4*>(queries + ((warp * 32 + r * 8 + g) * Tiles::kStride + I * 8) * 2);
    for (int J = I; J < Tiles::kBlocks; ++J, ++tile) {
      CopyWait<Tiles::kStages - 2>();
      __syncthreads();  // the tile has arrived for all, and all are done with the buffer that is filled next
      load(tile + Tiles::kStages - 1);
      QueryTile<T, kDim>(queries, buffers + tile % Tiles::kStages * Tiles::kBufferBytes, qi, J, sums);
    }
  }
  CopyWait<0>();
}

// Scores of 32 rows against 64 keys become weights (σ s)² e^{L_t - L_j}. With kIsBelow no key is later than any row,
// and e^{L_t - L_j} = e^{L_t - L_r} e^{L_r - L_j} with r the last key: neither factor exceeds 1. Without, keys past the
// diagonal weigh nothing.
template <bool kIsBelow, int kSpan>
__device__ __forceinline__ void WeighScores(const float2* chunk_sums, int first_row, int first_key, float scale_squared,
                                            float (&scores)[2][kSpan / 8][4], float (&denominator)[2][2]) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const float2 reference = chunk_sums[first_key + kSpan - 1];
  float2 row_sums[4];
  float row_factors[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    row_sums[r] = chunk_sums[first_row + r * 8 + g];
    row_factors[r] = scale_squared * (kIsBelow ? __expf(Difference(row_sums[r], reference)) : 1.0f);
  }
#pragma unroll
  for (int nt = 0; nt < kSpan / 8; ++nt) {
    const float4 key_sums = *reinterpret_cast<const float4*>(chunk_sums + first_key + nt * 8 + t * 2);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int key = first_key + nt * 8 + t * 2 + e;
      const float2 key_sum = e == 0 ? float2{key_sums.x, key_sums.y} : float2{key_sums.z, key_sums.w};
      const float key_factor = kIsBelow ? __expf(Difference(reference, key_sum)) : 0.0f;
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        float& score = scores[r / 2][nt][r % 2 * 2 + e];
        const float decay = kIsBelow ? key_factor : __expf(Difference(row_sums[r], key_sum));
        score *= score;
        score *= row_factors[r];
        score *= decay;
        if (!kIsBelow && key > first_row + r * 8 + g) score = 0;
        denominator[r / 2][r % 2] += score;
      }
    }
  }
}

// y += weights · V for kSpan keys.
template <typename T, int kDim>
__device__ __forceinline__ void QueryKeys(const char* queries, const char* keys, const char* values,
                                          const float2* chunk_sums, int first_row, int first_key, float scale_squared,
                                          QuerySums<kDim>& sums) {
  using Tiles = QueryTiles<kDim>;
  constexpr int kSpan = Tiles::kSpan;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float scores[2][kSpan / 8][4] = {};
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    uint32_t a[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      LoadMatrices(
          a[m],
          SharedAddress(queries + ((warp * 32 + m * 16 + lane % 16) * Tiles::kStride + k * 16 + lane / 16 * 8) * 2));
    }
#pragma unroll
    for (int np = 0; np < kSpan / 16; ++np) {
      uint32_t b[4];
      LoadMatrices(
          b, SharedAddress(keys +
                           ((np * 16 + lane / 16 * 8 + lane % 8) * Tiles::kStride + k * 16 + lane / 8 % 2 * 8) * 2));
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        Mma<T>(scores[m][2 * np], a[m], b[0], b[1]);
        Mma<T>(scores[m][2 * np + 1], a[m], b[2], b[3]);
      }
    }
  }
  if (first_key + kSpan - 1 <= first_row) {
    WeighScores<true, kSpan>(chunk_sums, first_row, first_key, scale_squared, scores, sums.denominator);
  } else {
    WeighScores<false, kSpan>(chunk_sums, first_row, first_key, scale_squared, scores, sums.denominator);
  }
#pragma unroll
  for (int k = 0; k < kSpan / 16; ++k) {
    uint32_t a[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int r = 0; r < 4; ++r)
        a[m][r] = Pair<T>::Pack(scores[m][2 * k + r / 2][r % 2 * 2], scores[m][2 * k + r / 2][r % 2 * 2 + 1]);
    }
#pragma unroll
    for (int np = 0; np < kDim / 16; ++np) {
      uint32_t b[4];
      LoadMatricesTransposed(
          b, SharedAddress(values + ((k * 16 + lane % 16) * Tiles::kStride + np * 16 + lane / 16 * 8) * 2));
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        Mma<T>(sums.y[m][2 * np], a[m], b[0], b[1]);
        Mma<T>(sums.y[m][2 * np + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// y and the denominator times e^L σ²: what stands before the chunk, seen from each row.
template <int kDim>
__device__ __forceinline__ void DecayState(const float2* chunk_sums, int first_row, float scale_squared,
                                           QuerySums<kDim>& sums) {
  const int g = threadIdx.x % 32 / 4;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float factor = scale_squared * expf(chunk_sums[first_row + m * 16 + half * 8 + g].x);
      sums.denominator[m][half] *= factor;
#pragma unroll
      for (int nt = 0; nt < kDim / 8; ++nt) {
        sums.y[m][nt][2 * half] *= factor;
        sums.y[m][nt][2 * half + 1] *= factor;
      }
    }
  }
}

template <typename T, int kDim>
__device__ __forceinline__ void StoreRows(const RetentionArgs<T>& args, const ChunkEntry& chunk, int first_row,
                                          int head, QuerySums<kDim>& sums) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float denominator = sums.denominator[m][half];
      denominator += __shfl_xor_sync(0xffffffffu, denominator, 1);
      denominator += __shfl_xor_sync(0xffffffffu, denominator, 2);
      const int row = first_row + m * 16 + half * 8 + g;
      if (row >= chunk.num_rows) continue;
      const int64_t at = (chunk.first_row + row) * args.heads_q + head;
      const float inverse = denominator >= FLT_MIN ? 1 / denominator : 0.0f;
      if (args.denominator != nullptr && t == 0) args.denominator[at] = denominator;
      uint32_t* y = reinterpret_cast<uint32_t*>(args.y + at * kDim) + t;
#pragma unroll
      for (int nt = 0; nt < kDim / 8; ++nt)
        y[nt * 4] = Pair<T>::Pack(sums.y[m][nt][2 * half] * inverse, sums.y[m][nt][2 * half + 1] * inverse);
    }
  }
}

// Grid (blocks, Hq).
template <typename T, int kDim>
__global__ void __launch_bounds__(QueryTiles<kDim>::kThreads, 2) QueryChunks(RetentionArgs<T> args) {
  using Tiles = QueryTiles<kDim>;
  extern __shared__ __align__(128) char shared[];
  char* queries = shared;
  char* buffers = shared + Tiles::kQueryBytes;
  const BlockEntry block = args.blocks[blockIdx.x];
  const ChunkEntry chunk = args.chunks[block.chunk];
  const int head = blockIdx.y, head_kv = head / (args.heads_q / args.heads_kv);
  const int64_t slot = static_cast<int64_t>(block.chunk) * args.heads_kv + head_kv;
  const float2* chunk_sums = args.sums + slot * args.chunk_rows;
  const int warp_row = block.first_row + threadIdx.x / 32 * 32;
  const int num_rows = min(kBlockRows, chunk.num_rows - block.first_row);
  constexpr int64_t kStateRows = RetentionStateRows(kDim);

  const int64_t first_row = chunk.first_row + block.first_row;
  LoadRows<T, kDim, kBlockRows, Tiles::kThreads>(SharedAddress(queries),
                                                 args.Q + (first_row * args.heads_q + head) * kDim,
                                                 int64_t{args.heads_q} * kDim, num_rows);
  CopyCommit();
  QuerySums<kDim> sums;
  if (HasState(args, chunk)) {
    ExpandNormalizer<T, kDim>(args.prefix_z + slot * kStateRows, buffers);
    CopyWait<0>();
    __syncthreads();  // Q and Z are there
    QueryNormalizer<T, kDim>(queries, buffers, sums);
    __syncthreads();  // Z may be overwritten
    QueryState<T, kDim>(queries, buffers, args.prefix + slot * kStateRows * kDim, sums);
    DecayState<kDim>(chunk_sums, warp_row, args.scale_squared, sums);
    __syncthreads();  // S may be overwritten
  }

  const int64_t kv_stride = int64_t{args.heads_kv} * kDim;
  const int64_t kv = (chunk.first_row * args.heads_kv + head_kv) * kDim;
  const int num_tiles = (block.first_row + num_rows + kTokenTile - 1) / kTokenTile;
  const auto load = [&](int tile) {
    if (tile < num_tiles) {
      const uint32_t buffer = SharedAddress(buffers) + tile % 2 * 2 * Tiles::kBufferBytes;
      const int64_t at = kv + tile * kTokenTile * kv_stride;
      const int valid = chunk.num_rows - tile * kTokenTile;
      LoadRows<T, kDim, 64, Tiles::kThreads>(buffer, args.K + at, kv_stride, valid);
      LoadRows<T, kDim, 64, Tiles::kThreads>(buffer + Tiles::kBufferBytes, args.V + at, kv_stride, valid);
    }
    CopyCommit();
  };
  load(0);
  for (int tile = 0; tile < num_tiles; ++tile) {
    CopyWait<0>();
    __syncthreads();  // the tile has arrived for all, and all are done with the other buffers
    load(tile + 1);
#pragma unroll 1
    for (int span = 0; span < kTokenTile; span += Tiles::kSpan) {
      const int first_key = tile * kTokenTile + span;
      if (first_key > warp_row + 31) break;
      const char* keys = buffers + tile % 2 * 2 * Tiles::kBufferBytes + span * Tiles::kStride * 2;
      QueryKeys<T, kDim>(queries, keys, keys + Tiles::kBufferBytes, chunk_sums, warp_row, first_key, args.scale_squared,
                         sums);
    }
  }
  StoreRows<T, kDim>(args, chunk, warp_row, head, sums);
}

}  // namespace statehouse::kernels
