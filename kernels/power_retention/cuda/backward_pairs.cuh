// What pairs of rows within a chunk give to gradients of 128 rows of one head. With a = σ² e^{L_t - L_j} / den_t, s =
// q·k and dW = dY·v - dY·y:
//   dQ_t += Σ_j 2 a s dW k_j     rows are queries, tiles hold K and V up to the diagonal
//   dK_j += Σ_t 2 a s dW q_t     rows are keys, tiles hold Q and dY from the diagonal on, of each head of the group
//   dV_j += Σ_t a s² dY_t        the same with one product less on the way
// e^{L_t - L_j} = e^{L_t - L_r} e^{L_r - L_j} with r the last key of the earlier tile of the two: no factor exceeds 1.
//
// A warp owns 16 rows. Row pairs are weighed in registers, from sums of the first products to left operands of the
// last.
#pragma once

#include <cuda_runtime.h>

#include "kernels/power_retention/cuda/backward_args.cuh"
#include "kernels/power_retention/cuda/products.cuh"

namespace statehouse::kernels {

enum class GradientOf { kQueries, kKeys, kValues };

template <int kDim, GradientOf kOf, bool kSm90>
struct PairTiles {
  static constexpr bool kNeedsU = kOf != GradientOf::kValues;
  static constexpr int kThreads = kBlockRows * 2;
  static constexpr int kMinBlocks = kDim == 64 && kSm90 ? 2 : 1;
  // Columns that a warp weighs at a time: two sums of so many beside d of the gradient must fit in its registers.
  static constexpr int kSpan = kDim == 128 || !kNeedsU ? 64 : 32;
  static constexpr int kStages = kDim == 128 ? 4 : 8;  // of tiles of S
  static constexpr int kBuffers = kSm90 ? 4 : 2;       // of two tiles of rows each
  static constexpr int kOwnBytes = 2 * kTileBytes<kDim>;
  static constexpr int kNormalizerBytes = kNeedsU ? 2 * kDim * (kDim + 8) * 2 : 0;
  static constexpr int kTilesBytes = (kStages > 2 * kBuffers ? kStages : 2 * kBuffers) * kTileBytes<kDim>;
  static constexpr int kRightBytes = kTilesBytes > kNormalizerBytes ? kTilesBytes : kNormalizerBytes;
  static constexpr int kColumnBytes = kBuffers * 2 * kTokenTile * 8;
  static constexpr int kSharedBytes = 1024 + kRightBytes + (kNeedsU ? 2 : 1) * kOwnBytes + kColumnBytes;
};

// What the block's rows are and which tiles of rows they meet.
template <typename T, int kDim, GradientOf kOf>
struct PairBlock {
  static constexpr bool kOfQueries = kOf == GradientOf::kQueries;

  __device__ __forceinline__ explicit PairBlock(const BackwardArgs<T>& args)
      : args(args), block(args.forward.blocks[blockIdx.x]), chunk(args.forward.chunks[block.chunk]) {
    const RetentionArgs<T>& forward = args.forward;
    group = forward.heads_q / forward.heads_kv;
    head_kv = kOfQueries ? blockIdx.y / group : blockIdx.y;
    slot = static_cast<int64_t>(block.chunk) * forward.heads_kv + head_kv;
    sums = forward.sums + slot * forward.chunk_rows;
    num_rows = min(kBlockRows, chunk.num_rows - block.first_row);
    warpgroup = WarpGroup();
    group_row = block.first_row + warpgroup * kTokenTile;
    const int tiles = (chunk.num_rows + kTokenTile - 1) / kTokenTile;
    first_tile = kOfQueries ? 0 : block.first_row / kTokenTile;
    tiles_per_head = kOfQueries ? (block.first_row + num_rows + kTokenTile - 1) / kTokenTile : tiles - first_tile;
    num_turns = kOfQueries ? tiles_per_head : tiles_per_head * group;
    turns_to_heads = 1.0f / static_cast<float>(tiles_per_head);
  }
  // Of one turn: the query head and the tile's first row in the chunk.
  __device__ __forceinline__ int QueryHead(int turn) const {
    return kOfQueries ? blockIdx.y : head_kv * group + HeadOf(turn);
  }
  __device__ __forceinline__ int TileRow(int turn) const {
    return kOfQueries ? turn * kTokenTile : (first_tile + turn - HeadOf(turn) * tiles_per_head) * kTokenTile;
  }
  // turn / tiles_per_head: exact, as turns are few against what a float holds.
  __device__ __forceinline__ int HeadOf(int turn) const {
    return static_cast<int>((static_cast<float>(turn) + 0.5f) * turns_to_heads);
  }
  __device__ __forceinline__ const float2* QueryRows(int head) const {
    return args.rows + (static_cast<int64_t>(block.chunk) * args.forward.heads_q + head) * args.forward.chunk_rows;
  }

  // The tile's two tensors: K and V, or Q and dY.
  __device__ __forceinline__ void LoadTile(int turn, uint32_t buffer) const {
    constexpr int kThreads = kBlockRows * 2;
    const RetentionArgs<T>& forward = args.forward;
    const int first = TileRow(turn), heads = kOfQueries ? forward.heads_kv : forward.heads_q;
    const int head = kOfQueries ? head_kv : QueryHead(turn);
    const int64_t at = ((chunk.first_row + first) * heads + head) * kDim, stride = int64_t{heads} * kDim;
    LoadOperand<T, kDim, kThreads>(buffer, (kOfQueries ? forward.K : forward.Q) + at, stride, chunk.num_rows - first);
    LoadOperand<T, kDim, kThreads>(buffer + kTileBytes<kDim>, (kOfQueries ? forward.V : args.dY) + at, stride,
                                   chunk.num_rows - first);
  }
  // This thread's part of what the tile's rows bring: e^{L_r - L_j}, or σ² e^{L_t - L_r} / den and dY·y, where r is the
  // last key of the warpgroup's rows.
  __device__ __forceinline__ float2 ColumnOf(int turn) const {
    const int c = TileRow(turn) + static_cast<int>(threadIdx.x) % kTokenTile;
    if constexpr (kOfQueries) {
      return {args.forward.key_factors[slot * args.forward.chunk_rows + c], 0.0f};
    } else {
      const float2 row = QueryRows(QueryHead(turn))[c];
      const int last = block.first_row + static_cast<int>(threadIdx.x) / kTokenTile % 2 * kTokenTile + kTokenTile - 1;
      return {row.x * __expf(fminf(0.0f, Difference(sums[c], sums[last]))), row.y};
    }
  }

  const BackwardArgs<T>& args;
  const BlockEntry block;
  const ChunkEntry chunk;
  int group, head_kv, num_rows, first_tile, tiles_per_head, num_turns;
  float turns_to_heads;
  int warpgroup;
  int group_row;  // first row of this warpgroup's 64
  int64_t slot;
  const float2* sums;
};

// What this lane's two rows, g and g + 8 of the warp, bring to every pair.
struct PairRows {
  float factors[2];  // of queries σ² / den; of keys e^{L_r - L_j}
  float deltas[2];   // of queries dY·y
  float2 sums[2];    // L, of queries
};

// a (2 a for queries and keys) for one lane's columns nt, by row and column: below the diagonal from factors, else
// masked.
template <typename T, int kDim, GradientOf kOf, bool kIsDiagonal>
__device__ __forceinline__ void PairFactors(const PairBlock<T, kDim, kOf>& pairs, int turn, int first_column,
                                            const PairRows& rows, const float (&row_factors)[2], float4 columns, int nt,
                                            float (&out)[2][2]) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  if constexpr (!kIsDiagonal) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
      out[half][0] = row_factors[half] * columns.x, out[half][1] = row_factors[half] * columns.z;
  } else {
    const int column = pairs.TileRow(turn) + first_column + nt * 8 + t * 2;
    const float4 sums = *reinterpret_cast<const float4*>(pairs.sums + column);
    float4 queries = {};
    if constexpr (kOf != GradientOf::kQueries)
      queries = *reinterpret_cast<const float4*>(pairs.QueryRows(pairs.QueryHead(turn)) + column);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = pairs.group_row + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + half * 8 + g;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float2 sum = e == 0 ? float2{sums.x, sums.y} : float2{sums.z, sums.w};
        if constexpr (kOf == GradientOf::kQueries) {
          out[half][e] = column + e <= row ? row_factors[half] * __expf(Difference(rows.sums[half], sum)) : 0.0f;
        } else {
          const float factor = (kOf == GradientOf::kKeys ? 2 : 1) * (e == 0 ? queries.x : queries.z);
          out[half][e] = column + e >= row ? factor * __expf(Difference(sum, pairs.sums[row])) : 0.0f;
        }
      }
    }
  }
}

// From s and dY·v (or v·dY) of 16 rows and kSpan columns to 2 a s dW, or a s², as left operands.
template <typename T, int kDim, GradientOf kOf, bool kIsDiagonal, int kSpan>
__device__ __forceinline__ void WeighPairs(const PairBlock<T, kDim, kOf>& pairs, int turn, int first_column,
                                           const PairRows& rows, const float2* columns, const float (&s)[kSpan / 8][4],
                                           const float (&dots)[kSpan / 8][4], float (&moved)[2],
                                           uint32_t (&weights)[kSpan / 16][4]) {
  const int t = threadIdx.x % 4;
  constexpr float kTwice = kOf == GradientOf::kValues ? 1.0f : 2.0f;
  float row_factors[2] = {kTwice * rows.factors[0], kTwice * rows.factors[1]};
  if constexpr (kOf == GradientOf::kQueries && !kIsDiagonal) {
    const float2 reference = pairs.sums[pairs.TileRow(turn) + kTokenTile - 1];
    row_factors[0] *= __expf(Difference(rows.sums[0], reference));
    row_factors[1] *= __expf(Difference(rows.sums[1], reference));
  }
#pragma unroll
  for (int nt = 0; nt < kSpan / 8; ++nt) {
    const float4 column = *reinterpret_cast<const float4*>(columns + first_column + nt * 8 + t * 2);
    float a[2][2];
    PairFactors<T, kDim, kOf, kIsDiagonal>(pairs, turn, first_column, rows, row_factors, column, nt, a);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float out[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float score = s[nt][2 * half + e];
        if constexpr (kOf == GradientOf::kValues) {
          out[e] = a[half][e] * score * score;
        } else {
          const float delta = kOf == GradientOf::kQueries ? rows.deltas[half] : e == 0 ? column.y : column.w;
          out[e] = a[half][e] * score * (dots[nt][2 * half + e] - delta);
          moved[half] = fmaf(out[e], score, moved[half]);  // twice w dW
        }
      }
      weights[nt / 2][nt % 2 * 2 + half] = Pair<T>::Pack(out[0], out[1]);
    }
  }
}

// Pairs of this warp's 16 rows with one tile; the last products are left under way. Calls when_done() once those of
// the tile before are done.
template <typename T, int kDim, GradientOf kOf, bool kSm90, typename WhenDone>
__device__ __forceinline__ void MeetTile(const PairBlock<T, kDim, kOf>& pairs, int turn, const PairRows& rows,
                                         uint32_t x, uint32_t u, uint32_t tile, const float2* columns,
                                         const WhenDone& when_done, float (&moved)[2], float (&sums)[kDim / 8][4]) {
  constexpr int kSpan = PairTiles<kDim, kOf, kSm90>::kSpan;
  const bool is_diagonal = pairs.TileRow(turn) == pairs.group_row;
  const uint32_t summed = kOf == GradientOf::kValues ? tile + kTileBytes<kDim> : tile;
#pragma unroll 1
  for (int first = 0; first < kTokenTile; first += kSpan) {
    float s[kSpan / 8][4], dots[kSpan / 8][4];
    BeginProducts<kSm90>();
    MultiplyRows<T, kDim, kSm90>(s, x, tile + first * 128);
    if constexpr (kOf != GradientOf::kValues)
      MultiplyRows<T, kDim, kSm90>(dots, u, tile + kTileBytes<kDim> + first * 128);
    CommitProducts<kSm90>();
    AwaitProducts<kSm90, 0>();
    PinProducts<kSm90>(s);
    if constexpr (kOf != GradientOf::kValues) PinProducts<kSm90>(dots);
    if (first == 0) when_done();
    uint32_t weights[kSpan / 16][4];
    if (!is_diagonal) {
      WeighPairs<T, kDim, kOf, false, kSpan>(pairs, turn, first, rows, columns, s, dots, moved, weights);
    } else {
      WeighPairs<T, kDim, kOf, true, kSpan>(pairs, turn, first, rows, columns, s, dots, moved, weights);
    }
    BeginProducts<kSm90>();
#pragma unroll
    for (int k = 0; k < kSpan / 16; ++k) SumOverRows<T, kSm90>(sums, weights[k], summed + first * 128, k);
    CommitProducts<kSm90>();
  }
}

// Does the warpgroup have pairs with the tile?
template <typename T, int kDim, GradientOf kOf>
__device__ __forceinline__ bool HasPairs(const PairBlock<T, kDim, kOf>& pairs, int turn) {
  const int tile_row = pairs.TileRow(turn);
  return kOf == GradientOf::kQueries ? tile_row <= pairs.group_row : tile_row >= pairs.group_row;
}
// How many threads bring columns; each has its place, warpgroup by warpgroup.
template <GradientOf kOf>
inline constexpr int kColumnHolders = kOf == GradientOf::kQueries ? kTokenTile : 2 * kTokenTile;

// All pairs within the chunk: two buffers, and a barrier of the block for each tile.
template <typename T, int kDim, GradientOf kOf>
__device__ __forceinline__ void MeetTiles(const PairBlock<T, kDim, kOf>& pairs, const PairRows& rows, uint32_t x,
                                          uint32_t u, uint32_t buffers, float2* columns, float (&moved)[2],
                                          float (&sums)[kDim / 8][4]) {
  constexpr int kBytes = 2 * kTileBytes<kDim>, kHolders = kColumnHolders<kOf>;
  const float2* own_columns = columns + (kOf == GradientOf::kQueries ? 0 : pairs.warpgroup * kTokenTile);
  float2 column = {};
  if (threadIdx.x < kHolders) columns[threadIdx.x] = pairs.ColumnOf(0);
  pairs.LoadTile(0, buffers);
  CopyCommit();
#pragma unroll 1
  for (int turn = 0; turn < pairs.num_turns; ++turn) {
    const bool has_next = turn + 1 < pairs.num_turns;
    CopyWait<0>();
    __syncthreads();  // the tile has arrived for all, and all are done with the other buffers
    if (has_next) {
      pairs.LoadTile(turn + 1, buffers + (turn + 1) % 2 * kBytes);
      if (threadIdx.x < kHolders) column = pairs.ColumnOf(turn + 1);
    }
    CopyCommit();
    if (HasPairs(pairs, turn)) {
      MeetTile<T, kDim, kOf, false>(
          pairs, turn, rows, x, u, buffers + turn % 2 * kBytes, own_columns + turn % 2 * 2 * kTokenTile, [] {}, moved,
          sums);
    }
    if (has_next && threadIdx.x < kHolders) columns[(turn + 1) % 2 * 2 * kTokenTile + threadIdx.x] = column;
  }
}

#ifdef STATEHOUSE_HAS_WGMMA

template <int kBuffers>
struct PairBarriers {
  BulkBarrier full[kBuffers], empty[kBuffers];
};

// The same with barriers of their own for each buffer, so that one warpgroup's products run beside the other's weights:
// copies are two tiles ahead, and a warpgroup may be as much behind the other.
template <typename T, int kDim, GradientOf kOf>
__device__ __forceinline__ void MeetTilesSm90(const PairBlock<T, kDim, kOf>& pairs, const PairRows& rows, uint32_t x,
                                              uint32_t u, uint32_t buffers, float2* columns, float (&moved)[2],
                                              float (&sums)[kDim / 8][4]) {
  using Tiles = PairTiles<kDim, kOf, true>;
  constexpr int kBytes = 2 * kTileBytes<kDim>, kBuffers = Tiles::kBuffers, kHolders = kColumnHolders<kOf>;
  __shared__ PairBarriers<kBuffers> barriers;
  const float2* own_columns = columns + (kOf == GradientOf::kQueries ? 0 : pairs.warpgroup * kTokenTile);
  const auto load = [&](int turn) {
    if (turn < pairs.num_turns) pairs.LoadTile(turn, buffers + turn % kBuffers * kBytes);
    CopyCommit();
  };
  // This thread's part of a tile is there.
  const auto arrive = [&](int turn, float2 column) {
    if (threadIdx.x < kHolders) columns[turn % kBuffers * 2 * kTokenTile + threadIdx.x] = column;
    CopyWait<1>();
    FenceSharedForProducts();
    barriers.full[turn % kBuffers].Arrive();
  };
  if (threadIdx.x == 0) {
    for (int b = 0; b < kBuffers; ++b) {
      barriers.full[b].Init(Tiles::kThreads);
      barriers.empty[b].Init(Tiles::kThreads / 32);
    }
    FenceBarrierInit();
  }
  __syncthreads();  // the barriers are there
  float2 column = {};
  if (threadIdx.x < kHolders) column = pairs.ColumnOf(0);
  load(0);
  load(1);
  arrive(0, column);
#pragma unroll 1
  for (int turn = 0; turn < pairs.num_turns; ++turn) {
    const bool has_next = turn + 1 < pairs.num_turns;
    if (turn >= 2) barriers.empty[(turn - 2) % kBuffers].Wait((turn - 2) / kBuffers % 2);
    load(turn + 2);
    if (has_next && threadIdx.x < kHolders) column = pairs.ColumnOf(turn + 1);
    barriers.full[turn % kBuffers].Wait(turn / kBuffers % 2);
    const auto release = [&] {
      if (turn > 0 && threadIdx.x % 32 == 0) barriers.empty[(turn - 1) % kBuffers].Arrive();
      __syncwarp();
    };
    if (HasPairs(pairs, turn)) {
      MeetTile<T, kDim, kOf, true>(pairs, turn, rows, x, u, buffers + turn % kBuffers * kBytes,
                                   own_columns + turn % kBuffers * 2 * kTokenTile, release, moved, sums);
    } else {
      ProductsWait<0>();
      release();
    }
    if (has_next) arrive(turn + 1, column);
  }
  ProductsWait<0>();
  PinSums(sums);
}

#endif  // STATEHOUSE_HAS_WGMMA

}  // namespace statehouse::kernels
