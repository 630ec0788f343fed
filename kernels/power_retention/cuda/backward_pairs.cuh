// Gradients of 128 rows of one head: first what the chunk state gives them (backward_state.cuh), then pairs of rows of
// the chunk. With a = σ² e^{L_t - L_j} / den_t, s = q·k and dW = dY·v - dY·y:
//   dQ_t += Σ_j 2 a s dW k_j     rows are queries, tiles hold K and V up to the diagonal
//   dK_j += Σ_t 2 a s dW q_t     rows are keys, tiles hold Q and dY from the diagonal on, of each head of the group
//   dV_j += Σ_t a s² dY_t        the same with one product less on the way
// e^{L_t - L_j} = e^{L_t - L_r} e^{L_r - L_j} with r the last key of the earlier tile of the two: no factor exceeds 1.
//
// A warp owns 16 rows. Row pairs are weighed in registers, from sums of the first products to left operands of the
// last.
//   shared: in turn z, tiles of S, two buffers of tiles of rows; X [128][d] and U [128][d]; factors of two tiles' rows
#pragma once

#include <cuda_runtime.h>

#include "kernels/power_retention/cuda/backward_args.cuh"
#include "kernels/power_retention/cuda/backward_state.cuh"

namespace statehouse::kernels {

enum class GradientOf { kQueries, kKeys, kValues };

template <int kDim, GradientOf kOf>
struct PairTiles {
  static constexpr bool kNeedsU = kOf != GradientOf::kValues;
  static constexpr int kThreads = kBlockRows * 2;
  static constexpr int kMinBlocks = 1;
  static constexpr int kStride = kDim + 8;  // elements of a row of X, U and z
  static constexpr int kStages = kDim == 128 ? 4 : 6;
  static constexpr int kOwnBytes = kBlockRows * kStride * 2;
  static constexpr int kNormalizerBytes = kNeedsU ? 2 * kDim * kStride * 2 : 0;
  static constexpr int kTilesBytes = (kStages > 4 ? kStages : 4) * kTileBytes<kDim>;
  static constexpr int kRightBytes = kTilesBytes > kNormalizerBytes ? kTilesBytes : kNormalizerBytes;
  static constexpr int kColumnBytes = 2 * 2 * kTokenTile * 8;
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
    group_row = block.first_row + static_cast<int>(threadIdx.x) / 128 * 64;
    const int tiles = (chunk.num_rows + kTokenTile - 1) / kTokenTile;
    first_tile = kOfQueries ? 0 : block.first_row / kTokenTile;
    tiles_per_head = kOfQueries ? (block.first_row + num_rows + kTokenTile - 1) / kTokenTile : tiles - first_tile;
    num_turns = kOfQueries ? tiles_per_head : tiles_per_head * group;
  }
  // Of one turn: the query head and the tile's first row in the chunk.
  __device__ __forceinline__ int QueryHead(int turn) const {
    return kOfQueries ? blockIdx.y : head_kv * group + turn / tiles_per_head;
  }
  __device__ __forceinline__ int TileRow(int turn) const { return (first_tile + turn % tiles_per_head) * kTokenTile; }
  __device__ __forceinline__ const float2* QueryRows(int head) const {
    return args.rows + (static_cast<int64_t>(block.chunk) * args.forward.heads_q + head) * args.forward.chunk_rows;
  }

  // The tile's two tensors: K and V, or Q and dY.
  __device__ __forceinline__ void LoadTile(int turn, uint32_t buffer) const {
    constexpr int kThreads = PairTiles<kDim, kOf>::kThreads;
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
  int group_row;  // first row of this warpgroup's 64
  int64_t slot;
  const float2* sums;
};

// What this lane's two rows, g and g + 8 of the warp, bring to every pair.
struct PairRows {
  float factors[2];  // of queries σ² / den; of keys e^{L_r - L_j}
  float deltas[2];   // of queries dY·y
  float2 sums[2];    // L
};

// a for one lane's columns nt, by row and column: below the diagonal from factors, else masked.
template <typename T, int kDim, GradientOf kOf, bool kIsDiagonal>
__device__ __forceinline__ void PairFactors(const PairBlock<T, kDim, kOf>& pairs, int turn, const PairRows& rows,
                                            const float (&row_factors)[2], float4 columns, int nt, float (&out)[2][2]) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  if constexpr (!kIsDiagonal) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
      out[half][0] = row_factors[half] * columns.x, out[half][1] = row_factors[half] * columns.z;
  } else {
    const int column = pairs.TileRow(turn) + nt * 8 + t * 2;
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
          out[half][e] = column + e <= row ? rows.factors[half] * __expf(Difference(rows.sums[half], sum)) : 0.0f;
        } else {
          const float factor = e == 0 ? queries.x : queries.z;
          out[half][e] = column + e >= row ? factor * __expf(Difference(sum, rows.sums[half])) : 0.0f;
        }
      }
    }
  }
}

// From s and dY·v (or v·dY) of 16 rows and 64 columns to 2 a s dW, or a s², as left operands.
template <typename T, int kDim, GradientOf kOf, bool kIsDiagonal>
__device__ __forceinline__ void WeighPairs(const PairBlock<T, kDim, kOf>& pairs, int turn, const PairRows& rows,
                                           const float2* columns, const float (&s)[8][4], const float (&dots)[8][4],
                                           float (&moved)[2], uint32_t (&weights)[4][4]) {
  const int t = threadIdx.x % 4;
  float row_factors[2] = {rows.factors[0], rows.factors[1]};
  if constexpr (kOf == GradientOf::kQueries && !kIsDiagonal) {
    const float2 reference = pairs.sums[pairs.TileRow(turn) + kTokenTile - 1];
    row_factors[0] *= __expf(Difference(rows.sums[0], reference));
    row_factors[1] *= __expf(Difference(rows.sums[1], reference));
  }
#pragma unroll
  for (int nt = 0; nt < 8; ++nt) {
    const float4 column = *reinterpret_cast<const float4*>(columns + nt * 8 + t * 2);
    float a[2][2];
    PairFactors<T, kDim, kOf, kIsDiagonal>(pairs, turn, rows, row_factors, column, nt, a);
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
          out[e] = 2 * a[half][e] * score * (dots[nt][2 * half + e] - delta);
          moved[half] = fmaf(out[e], score, moved[half]);  // twice w dW
        }
      }
      weights[nt / 2][nt % 2 * 2 + half] = Pair<T>::Pack(out[0], out[1]);
    }
  }
}

// Pairs of this warp's 16 rows with one tile; the last products are left under way.
template <typename T, int kDim, GradientOf kOf, bool kSm90>
__device__ __forceinline__ void MeetTile(const PairBlock<T, kDim, kOf>& pairs, int turn, const PairRows& rows,
                                         const char* x, const char* u, uint32_t tile, const float2* columns,
                                         float (&moved)[2], float (&sums)[kDim / 8][4]) {
  constexpr int kStride = kDim + 8;
  float s[8][4] = {}, dots[8][4] = {};
  uint32_t left[kDim / 16][4];
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) LoadLeft<kStride>(left[k], x, k);
  BeginProducts<kSm90>();
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) MultiplyByRows<T, kSm90>(s, left[k], tile, k);
  CommitProducts<kSm90>();
  if constexpr (kOf != GradientOf::kValues) {
    uint32_t left_u[kDim / 16][4];
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) LoadLeft<kStride>(left_u[k], u, k);
    BeginProducts<kSm90>();
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) MultiplyByRows<T, kSm90>(dots, left_u[k], tile + kTileBytes<kDim>, k);
    CommitProducts<kSm90>();
  }
  AwaitProducts<kSm90, 0>();
  PinProducts<kSm90>(s);
  PinProducts<kSm90>(dots);
  uint32_t weights[4][4];
  if (pairs.TileRow(turn) != pairs.group_row) {
    WeighPairs<T, kDim, kOf, false>(pairs, turn, rows, columns, s, dots, moved, weights);
  } else {
    WeighPairs<T, kDim, kOf, true>(pairs, turn, rows, columns, s, dots, moved, weights);
  }
  const uint32_t summed = kOf == GradientOf::kValues ? tile + kTileBytes<kDim> : tile;
  BeginProducts<kSm90>();
#pragma unroll
  for (int k = 0; k < 4; ++k) SumOverRows<T, kSm90>(sums, weights[k], summed, k);
  CommitProducts<kSm90>();
}

// All pairs within the chunk.
template <typename T, int kDim, GradientOf kOf, bool kSm90>
__device__ __forceinline__ void MeetTiles(const PairBlock<T, kDim, kOf>& pairs, const PairRows& rows, const char* x,
                                          const char* u, uint32_t buffers, float2* columns, float (&moved)[2],
                                          float (&sums)[kDim / 8][4]) {
  constexpr bool kOfQueries = kOf == GradientOf::kQueries;
  constexpr int kHolders = kOfQueries ? kTokenTile : 2 * kTokenTile;  // threads that bring columns
  const float2* own_columns = kOfQueries ? columns : columns + threadIdx.x / 128 * kTokenTile;
  float2 column = {};
  if (threadIdx.x < kHolders) columns[threadIdx.x] = pairs.ColumnOf(0);
  pairs.LoadTile(0, buffers);
  CopyCommit();
#pragma unroll 1
  for (int turn = 0; turn < pairs.num_turns; ++turn) {
    const bool has_next = turn + 1 < pairs.num_turns;
    CopyWait<0>();
    if constexpr (kSm90) FenceSharedForProducts();
    AwaitProducts<kSm90, 0>();
    __syncthreads();  // the tile has arrived for all, and all are done with the other buffers
    if (has_next) {
      pairs.LoadTile(turn + 1, buffers + (turn + 1) % 2 * 2 * kTileBytes<kDim>);
      if (threadIdx.x < kHolders) column = pairs.ColumnOf(turn + 1);
    }
    CopyCommit();
    const int tile_row = pairs.TileRow(turn);
    if (kOfQueries ? tile_row <= pairs.group_row : tile_row >= pairs.group_row) {
      MeetTile<T, kDim, kOf, kSm90>(pairs, turn, rows, x, u, buffers + turn % 2 * 2 * kTileBytes<kDim>,
                                    own_columns + turn % 2 * 2 * kTokenTile, moved, sums);
    }
    if (has_next && threadIdx.x < kHolders) columns[(turn + 1) % 2 * 2 * kTokenTile + threadIdx.x] = column;
  }
  AwaitProducts<kSm90, 0>();
  PinProducts<kSm90>(sums);
}

// x·dx / 2 over this lane's columns of its two rows: how much of Σ w dW came with what dx holds so far.
template <typename T, int kDim>
__device__ __forceinline__ void DotRows(const char* x, const float (&dx)[kDim / 8][4], float (&out)[2]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const char* row = x + (warp * 16 + half * 8 + g) * (kDim + 8) * 2;
    float sum = 0;
#pragma unroll
    for (int nt = 0; nt < kDim / 8; ++nt) {
      const uint32_t pair = *reinterpret_cast<const uint32_t*>(row + nt * 16 + t * 4);
      sum += Pair<T>::Low(pair) * dx[nt][2 * half] + Pair<T>::High(pair) * dx[nt][2 * half + 1];
    }
    out[half] = 0.5f * sum;
  }
}

__device__ __forceinline__ float SumOfRow(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Stores the rows' gradients and what they moved: through the state, and within the chunk (twice).
template <typename T, int kDim, GradientOf kOf>
__device__ __forceinline__ void StoreGradients(const PairBlock<T, kDim, kOf>& pairs, const float (&through_state)[2],
                                               const float (&moved)[2], const float (&sums)[kDim / 8][4]) {
  const BackwardArgs<T>& args = pairs.args;
  const RetentionArgs<T>& forward = args.forward;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  constexpr bool kOfQueries = kOf == GradientOf::kQueries;
  T* to = kOfQueries ? args.dQ : kOf == GradientOf::kKeys ? args.dK : args.dV;
  const int heads = kOfQueries ? forward.heads_q : forward.heads_kv;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float state = SumOfRow(through_state[half]), own = 0.5f * SumOfRow(moved[half]);
    const int row = pairs.block.first_row + static_cast<int>(threadIdx.x) / 32 * 16 + half * 8 + g;
    if (row >= pairs.chunk.num_rows) continue;
    if (t == 0) {
      const int64_t at = (static_cast<int64_t>(pairs.block.chunk) * heads + blockIdx.y) * forward.chunk_rows + row;
      if constexpr (kOfQueries) args.query_sums[at] = state + own;
      if constexpr (kOf == GradientOf::kKeys) args.key_sums[at] = {state, own};
    }
    uint32_t* out = reinterpret_cast<uint32_t*>(to + ((pairs.chunk.first_row + row) * heads + blockIdx.y) * kDim) + t;
#pragma unroll
    for (int nt = 0; nt < kDim / 8; ++nt) out[nt * 4] = Pair<T>::Pack(sums[nt][2 * half], sums[nt][2 * half + 1]);
  }
}

// Grid (blocks, Hq) for queries, (blocks, Hk) for keys and values.
template <typename T, int kDim, GradientOf kOf, bool kSm90>
__global__ void __launch_bounds__(PairTiles<kDim, kOf>::kThreads, PairTiles<kDim, kOf>::kMinBlocks)
    GradientOfRows(BackwardArgs<T> args) {
  if constexpr (!kSm90 || kHasWgmma) {
    using Tiles = PairTiles<kDim, kOf>;
    using State = StateTiles<T, kDim, kSm90, Tiles::kStages, Tiles::kThreads>;
    extern __shared__ __align__(1024) char unaligned[];
    __shared__ typename State::Barriers barriers;
    char* buffers = unaligned + (1024 - SharedAddress(unaligned) % 1024) % 1024;
    char* x = buffers + Tiles::kRightBytes;
    char* u = x + Tiles::kOwnBytes;
    float2* columns = reinterpret_cast<float2*>(x + (Tiles::kNeedsU ? 2 : 1) * Tiles::kOwnBytes);
    constexpr bool kOfQueries = kOf == GradientOf::kQueries;
    const PairBlock<T, kDim, kOf> pairs(args);
    const RetentionArgs<T>& forward = args.forward;

    const int heads = kOfQueries ? forward.heads_q : forward.heads_kv;
    const int64_t first = ((pairs.chunk.first_row + pairs.block.first_row) * heads + blockIdx.y) * kDim;
    LoadRows<T, kDim, kBlockRows, Tiles::kThreads>(SharedAddress(x), (kOfQueries ? forward.Q : forward.K) + first,
                                                   int64_t{heads} * kDim, pairs.num_rows);
    if constexpr (Tiles::kNeedsU) {
      LoadRows<T, kDim, kBlockRows, Tiles::kThreads>(SharedAddress(u), (kOfQueries ? args.dY : forward.V) + first,
                                                     int64_t{heads} * kDim, pairs.num_rows);
    }
    CopyCommit();

    PairRows rows;
    const int lane_row = pairs.block.first_row + static_cast<int>(threadIdx.x) / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane_row + half * 8;
      rows.sums[half] = pairs.sums[row];
      if constexpr (kOfQueries) {
        const float2 query = pairs.QueryRows(blockIdx.y)[row];
        rows.factors[half] = query.x, rows.deltas[half] = query.y;
      } else {
        rows.factors[half] = forward.key_factors[pairs.slot * forward.chunk_rows + row], rows.deltas[half] = 0;
      }
    }

    float sums[kDim / 8][4] = {}, through_state[2] = {}, moved[2] = {};
    const bool has_state = kOfQueries ? args.has_prefix && HasState(forward, pairs.chunk)
                                      : args.has_suffix && HasGradient(args, pairs.chunk);
    if (has_state) {
      constexpr int64_t kRows = RetentionStateRows(kDim);
      const T* state = (kOfQueries ? forward.prefix : args.suffix) + pairs.slot * kRows * kDim;
      State::Init(barriers);
      if constexpr (Tiles::kNeedsU) {
        const float* z = (kOfQueries ? forward.prefix_z : args.suffix_z) + pairs.slot * kRows;
        ExpandSymmetric<T, kDim, Tiles::kThreads>(z, kOfQueries ? 1.0f : 0.5f, buffers);
      }
      CopyWait<0>();
      __syncthreads();  // X, U, z and the barriers are there
      if constexpr (Tiles::kNeedsU) {
        const float factors[2] = {kOfQueries ? -2 * rows.deltas[0] : 2.0f, kOfQueries ? -2 * rows.deltas[1] : 2.0f};
        GradientFromNormalizer<T, kDim>(x, buffers, factors, sums);
        if constexpr (kSm90) FenceSharedForProducts();  // bulk copies follow ordinary accesses
        __syncthreads();                                // z may be overwritten
      }
      State tiles(barriers, SharedAddress(buffers), state);
      if constexpr (Tiles::kNeedsU) {
        GradientFromState<T, kDim, kSm90>(tiles, x, u, sums);
      } else {
        ValuesFromState<T, kDim, kSm90>(tiles, x, sums);
      }
      const float2 last = pairs.sums[pairs.chunk.num_rows - 1];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float factor =
            kOfQueries ? rows.factors[half] * expf(rows.sums[half].x) : expf(Difference(last, rows.sums[half]));
#pragma unroll
        for (int nt = 0; nt < kDim / 8; ++nt) sums[nt][2 * half] *= factor, sums[nt][2 * half + 1] *= factor;
      }
      if constexpr (Tiles::kNeedsU) DotRows<T, kDim>(x, sums, through_state);
      CopyWait<0>();
      __syncthreads();  // tiles of the state may be overwritten
    }
    MeetTiles<T, kDim, kOf, kSm90>(pairs, rows, x, u, SharedAddress(buffers), columns, moved, sums);
    StoreGradients<T, kDim, kOf>(pairs, through_state, moved, sums);
  }
}

}  // namespace statehouse::kernels
