// QueryChunks for Hopper: the same sums through warpgroup products.
//
// A warpgroup owns 64 rows, each warp 16 of them. φ(q) of a tile of pairs and the weights of 64 keys are left operands
// in registers; tiles of S, K and V are right operands in shared memory. Products of one tile run while the next tile's
// φ(q) is formed.
//   shared: Q [128][d], and in turn Z (two numbers of T each), kStages pairs of tiles of S, two of K and V
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/wgmma.cuh"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/query.cuh"

namespace statehouse::kernels {

template <int kDim>
struct QueryTilesSm90 {
  static constexpr int kBlocks = kDim / 8;
  static constexpr int kTiles = kBlocks * (kBlocks + 1) / 2;
  static constexpr int kThreads = kBlockRows * 2;
  static constexpr int kStride = kDim + 8;            // elements of a row of Q and Z
  static constexpr int kStages = kDim == 64 ? 5 : 4;  // of two tiles of S
  static constexpr int kBufferBytes = 64 * kDim * 2;
  static constexpr int kNormalizerBytes = 2 * kDim * kStride * 2;
  static constexpr int kRightBytes =
      2 * kStages * kBufferBytes > kNormalizerBytes ? 2 * kStages* kBufferBytes : kNormalizerBytes;
  static constexpr int kSharedBytes = 1024 + kRightBytes + kBlockRows * kStride * 2;
};

// 64 rows of d elements as right operands: blocks of 64 columns, rows of 128 bytes; rows from `valid` on are zero.
template <typename T, int kDim, int kThreads>
__device__ __forceinline__ void LoadOperand(uint32_t buffer, const T* rows, int64_t row_stride, int valid) {
  constexpr int kUnits = kDim / 8;
  ForEach<64 * kUnits, kThreads>([&](int unit) {
    const int row = unit / kUnits, column = unit % kUnits;
    const bool is_valid = row < valid;
    CopyAsync16(buffer + column / 8 * 64 * 128 + SwizzledUnit(row, column % 8),
                rows + (is_valid ? row * row_stride + column * 8 : 0), is_valid);
  });
}

#ifdef STATEHOUSE_HAS_WGMMA

template <int kDim>
struct QuerySumsSm90 {
  float y[kDim / 8][4] = {};
  float denominator[2] = {};  // rows g and g + 8; of this lane's columns only
};

// denominator += qᵀ Z q
template <typename T, int kDim>
__device__ __forceinline__ void QueryNormalizerSm90(const char* queries, const char* z, QuerySumsSm90<kDim>& sums) {
  using Tiles = QueryTilesSm90<kDim>;
  constexpr int kLow = kDim * Tiles::kStride * 2;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll 1
  for (int np = 0; np < kDim / 16; ++np) {
    float qz[2][4] = {};
#pragma unroll 2
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t a[4], b[4], b_low[4];
      const int at = ((np * 16 + lane / 16 * 8 + lane % 8) * Tiles::kStride + k * 16 + lane / 8 % 2 * 8) * 2;
      LoadMatrices(b, SharedAddress(z + at));
      LoadMatrices(b_low, SharedAddress(z + kLow + at));
      LoadMatrices(a, SharedAddress(queries + ((warp * 16 + lane % 16) * Tiles::kStride + k * 16 + lane / 16 * 8) * 2));
      Mma<T>(qz[0], a, b[0], b[1]);
      Mma<T>(qz[1], a, b[2], b[3]);
      Mma<T>(qz[0], a, b_low[0], b_low[1]);
      Mma<T>(qz[1], a, b_low[2], b_low[3]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int nt = 0; nt < 2; ++nt) {
        const int row = warp * 16 + half * 8 + g, column = np * 16 + nt * 8 + t * 2;
        const uint32_t q = *reinterpret_cast<const uint32_t*>(queries + (row * Tiles::kStride + column) * 2);
        sums.denominator[half] += qz[nt][2 * half] * Pair<T>::Low(q) + qz[nt][2 * half + 1] * Pair<T>::High(q);
      }
    }
  }
}

// φ(q) for the pairs of one tile: four steps of 16 pairs.
template <typename T, int kDim>
__device__ __forceinline__ void ExpandQueryTile(const char* queries, TilePosition tile, uint32_t (&a)[4][4]) {
  using Tiles = QueryTilesSm90<kDim>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const char* row = queries + (warp * 16 + half * 8 + g) * Tiles::kStride * 2;
    const uint32_t qj = *reinterpret_cast<const uint32_t*>(row + (tile.J * 8 + t * 2) * 2);
    const uint4 qi = *reinterpret_cast<const uint4*>(row + tile.I * 16);
    const uint32_t pairs[4] = {qi.x, qi.y, qi.z, qi.w};
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      a[s][half] = Pair<T>::Multiply(RepeatLow(pairs[s]), qj);
      a[s][half + 2] = Pair<T>::Multiply(RepeatHigh(pairs[s]), qj);
    }
  }
}

// The pipeline of pairs of tiles of S through shared memory.
template <int kDim>
struct StatePipeline {
  static constexpr int kStages = QueryTilesSm90<kDim>::kStages;
  BulkBarrier full[kStages], empty[kStages];
};

// y += φ(q)ᵀ S
template <typename T, int kDim>
__device__ __forceinline__ void QueryStateSm90(const char* queries, char* buffers, const T* state,
                                               StatePipeline<kDim>& pipeline, QuerySumsSm90<kDim>& sums) {
  using Tiles = QueryTilesSm90<kDim>;
  constexpr int kStages = Tiles::kStages, kSteps = Tiles::kTiles / 2, kBytes = 2 * Tiles::kBufferBytes;
  static_assert(Tiles::kTiles % 2 == 0);
  const uint32_t base = SharedAddress(buffers);
  const int lane = threadIdx.x % 32;
  const auto load = [&](int step) {
    BulkBarrier& full = pipeline.full[step % kStages];
    full.ArriveAndExpect(kBytes);
    full.Copy(base + step % kStages * kBytes, reinterpret_cast<const char*>(state) + step * kBytes, kBytes);
  };
  if (threadIdx.x == 0) {
    for (int step = 0; step < kStages; ++step) load(step);
  }
  TilePosition at = {0, 0};
  const auto multiply = [&](uint32_t buffer, uint32_t(&a)[4][4]) {
    ExpandQueryTile<T, kDim>(queries, at, a);
    if (++at.J == Tiles::kBlocks) at.J = ++at.I;
    ProductsBegin();
#pragma unroll
    for (int s = 0; s < 4; ++s) GroupMma<T, true>(sums.y, a[s], RowsAreSummed(buffer + s * 16 * 128, 64 * 128));
    ProductsCommit();
    ProductsWait<1>();  // φ(q) of the tile before may be overwritten
  };
  uint32_t even[4][4], odd[4][4];
#pragma unroll 1
  for (int step = 0; step < kSteps; ++step) {
    const uint32_t stage = base + step % kStages * kBytes;
    pipeline.full[step % kStages].Wait(step / kStages % 2);
    multiply(stage, even);
    if (step > 0 && lane == 0) pipeline.empty[(step - 1) % kStages].Arrive();
    if (threadIdx.x == 0 && step > 1 && step - 2 + kStages < kSteps) {  // two back: nobody is far behind
      pipeline.empty[(step - 2) % kStages].Wait((step - 2) / kStages % 2);
      load(step - 2 + kStages);
    }
    __syncwarp();
    multiply(stage + Tiles::kBufferBytes, odd);
  }
  ProductsWait<0>();
  PinSums(sums.y);
}

// Scores of 16 rows against 64 keys become weights (σ s)² e^{L_t - L_j}, as left operands; see WeighScores.
template <typename T, bool kIsBelow>
__device__ __forceinline__ void WeighKeysSm90(const float2* chunk_sums, const float* key_factors, int first_row,
                                              int first_key, float scale_squared, const float (&scores)[8][4],
                                              float (&denominator)[2], uint32_t (&weights)[4][4]) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const float2 row_sums[2] = {chunk_sums[first_row + g], chunk_sums[first_row + g + 8]};
  float row_factors[2] = {scale_squared, scale_squared};
  if (kIsBelow) {
    const float2 reference = chunk_sums[first_key + kTokenTile - 1];
    row_factors[0] *= __expf(Difference(row_sums[0], reference));
    row_factors[1] *= __expf(Difference(row_sums[1], reference));
  }
#pragma unroll
  for (int nt = 0; nt < 8; ++nt) {
    const int key = first_key + nt * 8 + t * 2;
    float decays[2][2];
    if (kIsBelow) {
      const float2 factors = *reinterpret_cast<const float2*>(key_factors + key);
#pragma unroll
      for (int half = 0; half < 2; ++half)
        decays[half][0] = factors.x * row_factors[half], decays[half][1] = factors.y * row_factors[half];
    } else {
      const float4 key_sums = *reinterpret_cast<const float4*>(chunk_sums + key);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first_row + half * 8 + g;
        const float first = __expf(Difference(row_sums[half], {key_sums.x, key_sums.y}));
        const float second = __expf(Difference(row_sums[half], {key_sums.z, key_sums.w}));
        decays[half][0] = key <= row ? scale_squared * first : 0.0f;
        decays[half][1] = key + 1 <= row ? scale_squared * second : 0.0f;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float first = scores[nt][2 * half] * scores[nt][2 * half] * decays[half][0];
      const float second = scores[nt][2 * half + 1] * scores[nt][2 * half + 1] * decays[half][1];
      denominator[half] += first + second;
      weights[nt / 2][nt % 2 * 2 + half] = Pair<T>::Pack(first, second);
    }
  }
}

// y += weights · V for 64 keys; leaves the last products under way.
template <typename T, int kDim>
__device__ __forceinline__ void QueryKeysSm90(const char* queries, uint32_t keys, const float2* chunk_sums,
                                              const float* key_factors, int first_row, int first_key,
                                              float scale_squared, QuerySumsSm90<kDim>& sums) {
  using Tiles = QueryTilesSm90<kDim>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float scores[8][4] = {};
  uint32_t q[kDim / 16][4];
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    LoadMatrices(q[k],
                 SharedAddress(queries + ((warp * 16 + lane % 16) * Tiles::kStride + k * 16 + lane / 16 * 8) * 2));
  }
  ProductsBegin();
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k)
    GroupMma<T, false>(scores, q[k], RowsAreColumns(keys + k / 4 * 64 * 128 + k % 4 * 32));
  ProductsCommit();
  ProductsWait<0>();
  PinSums(scores);
  uint32_t weights[4][4];
  if (first_key + kTokenTile - 1 <= first_row) {
    WeighKeysSm90<T, true>(chunk_sums, key_factors, first_row, first_key, scale_squared, scores, sums.denominator,
                           weights);
  } else {
    WeighKeysSm90<T, false>(chunk_sums, key_factors, first_row, first_key, scale_squared, scores, sums.denominator,
                            weights);
  }
  ProductsBegin();
  const uint32_t values = keys + Tiles::kBufferBytes;
#pragma unroll
  for (int k = 0; k < 4; ++k) GroupMma<T, true>(sums.y, weights[k], RowsAreSummed(values + k * 16 * 128, 64 * 128));
  ProductsCommit();
}

// y and the denominator times e^L σ²; then, with kIsLast, divided and stored.
template <typename T, int kDim>
__device__ __forceinline__ void StoreRowsSm90(const RetentionArgs<T>& args, const ChunkEntry& chunk, int first_row,
                                              int head, QuerySumsSm90<kDim>& sums) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float denominator = sums.denominator[half];
    denominator += __shfl_xor_sync(0xffffffffu, denominator, 1);
    denominator += __shfl_xor_sync(0xffffffffu, denominator, 2);
    const int row = first_row + half * 8 + g;
    if (row >= chunk.num_rows) continue;
    const int64_t at = (chunk.first_row + row) * args.heads_q + head;
    const float inverse = denominator >= FLT_MIN ? 1 / denominator : 0.0f;
    if (args.denominator != nullptr && t == 0) args.denominator[at] = denominator;
    uint32_t* y = reinterpret_cast<uint32_t*>(args.y + at * kDim) + t;
#pragma unroll
    for (int nt = 0; nt < kDim / 8; ++nt)
      y[nt * 4] = Pair<T>::Pack(sums.y[nt][2 * half] * inverse, sums.y[nt][2 * half + 1] * inverse);
  }
}

#endif  // STATEHOUSE_HAS_WGMMA

// Grid (blocks, Hq).
template <typename T, int kDim>
__global__ void __launch_bounds__(QueryTilesSm90<kDim>::kThreads, kDim == 64 ? 2 : 1)
    QueryChunksSm90(RetentionArgs<T> args) {
#ifdef STATEHOUSE_HAS_WGMMA
  using Tiles = QueryTilesSm90<kDim>;
  extern __shared__ __align__(1024) char unaligned[];
  __shared__ StatePipeline<kDim> pipeline;
  char* buffers = unaligned + (1024 - SharedAddress(unaligned) % 1024) % 1024;
  char* queries = buffers + Tiles::kRightBytes;
  const BlockEntry block = args.blocks[blockIdx.x];
  const ChunkEntry chunk = args.chunks[block.chunk];
  const int head = blockIdx.y, head_kv = head / (args.heads_q / args.heads_kv);
  const int64_t slot = static_cast<int64_t>(block.chunk) * args.heads_kv + head_kv;
  const float2* chunk_sums = args.sums + slot * args.chunk_rows;
  const float* key_factors = args.key_factors + slot * args.chunk_rows;
  const int warp_row = block.first_row + threadIdx.x / 32 * 16;
  const int group_last_row = block.first_row + threadIdx.x / 128 * 64 + 63;
  const int num_rows = min(kBlockRows, chunk.num_rows - block.first_row);
  constexpr int64_t kStateRows = RetentionStateRows(kDim);

  const int64_t first_row = chunk.first_row + block.first_row;
  LoadRows<T, kDim, kBlockRows, Tiles::kThreads>(SharedAddress(queries),
                                                 args.Q + (first_row * args.heads_q + head) * kDim,
                                                 int64_t{args.heads_q} * kDim, num_rows);
  CopyCommit();
  QuerySumsSm90<kDim> sums;
  if (HasState(args, chunk)) {
    if (threadIdx.x == 0) {
      for (int s = 0; s < Tiles::kStages; ++s) {
        pipeline.full[s].Init(1);
        pipeline.empty[s].Init(Tiles::kThreads / 32);
      }
      FenceBarrierInit();
    }
    ExpandNormalizer<T, kDim, Tiles::kThreads>(args.prefix_z + slot * kStateRows, buffers);
    CopyWait<0>();
    __syncthreads();  // Q and Z are there
    QueryNormalizerSm90<T, kDim>(queries, buffers, sums);
    FenceSharedForProducts();  // bulk copies follow ordinary reads
    __syncthreads();           // Z may be overwritten
    QueryStateSm90<T, kDim>(queries, buffers, args.prefix + slot * kStateRows * kDim, pipeline, sums);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float factor = args.scale_squared * expf(chunk_sums[warp_row + half * 8 + threadIdx.x % 32 / 4].x);
      sums.denominator[half] *= factor;
#pragma unroll
      for (int nt = 0; nt < kDim / 8; ++nt) sums.y[nt][2 * half] *= factor, sums.y[nt][2 * half + 1] *= factor;
    }
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
      LoadOperand<T, kDim, Tiles::kThreads>(buffer, args.K + at, kv_stride, valid);
      LoadOperand<T, kDim, Tiles::kThreads>(buffer + Tiles::kBufferBytes, args.V + at, kv_stride, valid);
    }
    CopyCommit();
  };
  load(0);
#pragma unroll 1
  for (int tile = 0; tile < num_tiles; ++tile) {
    CopyWait<0>();
    FenceSharedForProducts();
    ProductsWait<0>();
    __syncthreads();  // the tile has arrived for all, and all are done with the other buffers
    load(tile + 1);
    if (tile * kTokenTile > group_last_row) continue;
    QueryKeysSm90<T, kDim>(queries, SharedAddress(buffers) + tile % 2 * 2 * Tiles::kBufferBytes, chunk_sums,
                           key_factors, warp_row, tile * kTokenTile, args.scale_squared, sums);
  }
  ProductsWait<0>();
  PinSums(sums.y);
  StoreRowsSm90<T, kDim>(args, chunk, warp_row, head, sums);
#endif
}

}  // namespace statehouse::kernels
