// Gradients of 64 rows of one head in float32 without tensor cores: for the types whose squares 16 bits do not hold,
// and for degree 4. With x a row of Q (K), u the same row of dY (V), x' and u' the other side:
//   w = σ^p / den (x·x')^p e^{L_t - L_j},  dW = u·u' - dY·y,  dx += p w / (x·x') dW x',  dv += w dY
// and what a state gives (gradient_state_wide.cuh).
//
// A thread takes 4 rows and d/16 columns of dx (and dv), all of the sum over the other side's rows, 32 at a time.
//   shared: xᵀ [d][68], uᵀ [d][68]; x' [32][d + 4], u' [32][d + 4], p w / (x·x') dW [32][68], w [32][68]
#pragma once

#include <cuda_runtime.h>

#include <cfloat>

#include "kernels/power_retention/cuda/backward_args.cuh"
#include "kernels/power_retention/cuda/fourth.cuh"
#include "kernels/power_retention/cuda/gradient_state_wide.cuh"
#include "kernels/power_retention/cuda/query_wide.cuh"

namespace statehouse::kernels {

// The rows of one block.
template <typename T, int kDim, bool kOfQueries>
struct WideRows {
  using Tiles = WideGradientTiles<kDim>;

  __device__ __forceinline__ explicit WideRows(const BackwardArgs<T>& args_of_call)
      : args(args_of_call),
        forward(args_of_call.forward),
        block(forward.blocks[blockIdx.x / 2]),
        chunk(forward.chunks[block.chunk]),
        first_row(block.first_row + static_cast<int>(blockIdx.x) % 2 * Tiles::kRows),
        group(forward.heads_q / forward.heads_kv),
        head_kv(kOfQueries ? static_cast<int>(blockIdx.y) / group : static_cast<int>(blockIdx.y)),
        slot(static_cast<int64_t>(block.chunk) * forward.heads_kv + head_kv),
        sums(forward.sums + slot * forward.chunk_rows) {}

  // This thread's row r, within the chunk.
  __device__ __forceinline__ int Row(int r) const { return first_row + Tiles::Query::Row() + r; }
  // What a query's rows bring: σ^p / den and dY·y.
  __device__ __forceinline__ const float2* QueryRows(int head) const {
    return args.rows + (static_cast<int64_t>(block.chunk) * forward.heads_q + head) * forward.chunk_rows;
  }

  const BackwardArgs<T>& args;
  const RetentionArgs<T>& forward;
  const BlockEntry block;
  const ChunkEntry chunk;
  const int first_row, group, head_kv;
  const int64_t slot;
  const float2* sums;  // of log gates, by row of the chunk
};

// rows[t] = σ^p / den, dY·y. Grid (blocks, Hq). A thread takes a row and sums as MultiplyPairsWide() does: where y is
// all but one v, what both have lost to rounding goes when they are subtracted.
template <typename T, int kDim>
__global__ void __launch_bounds__(kBlockRows) WeighRowsWide(BackwardArgs<T> args) {
  const RetentionArgs<T>& forward = args.forward;
  const BlockEntry block = forward.blocks[blockIdx.x];
  const ChunkEntry chunk = forward.chunks[block.chunk];
  const int head = blockIdx.y, row = block.first_row + static_cast<int>(threadIdx.x);
  float2 brings = {};
  if (row < chunk.num_rows) {
    const int64_t at = (chunk.first_row + row) * forward.heads_q + head;
#pragma unroll 2
    for (int c = 0; c < kDim; c += 8) {
      float y[8], dY[8];
      LoadEight(y, args.y + at * kDim + c);
      LoadEight(dY, args.dY + at * kDim + c);
#pragma unroll
      for (int e = 0; e < 8; ++e) brings.y = fmaf(dY[e], y[e], brings.y);
    }
    const float scale = forward.degree == 2 ? forward.scale_squared : forward.scale_squared * forward.scale_squared;
    const float denominator = args.denominator[at];
    brings.x = denominator >= FLT_MIN ? scale / denominator : 0.0f;
  }
  args.rows[(static_cast<int64_t>(block.chunk) * forward.heads_q + head) * forward.chunk_rows + row] = brings;
}

// 64 rows into shared memory, transposed; zeros past the chunk's end. `heads`: rows of a token.
template <typename T, int kDim>
__device__ __forceinline__ void LoadTransposedWide(const T* from, int heads, int head, const ChunkEntry& chunk,
                                                   int first_row, float* to) {
  using Tiles = WideGradientTiles<kDim>;
  ForEach<Tiles::kRows*(kDim / 8), Tiles::kThreads>([&](int unit) {
    const int row = unit % Tiles::kRows, column = unit / Tiles::kRows * 8;
    float x[8] = {};
    if (first_row + row < chunk.num_rows)
      LoadEight(x, from + ((chunk.first_row + first_row + row) * heads + head) * kDim + column);
#pragma unroll
    for (int e = 0; e < 8; ++e) to[(column + e) * Tiles::kRowStride + row] = x[e];
  });
}

// 32 rows of the other side into shared memory; zeros past the chunk's end.
template <typename T, int kDim>
__device__ __forceinline__ void LoadOthersWide(const T* from, int heads, int head, const ChunkEntry& chunk, int first,
                                               float* to) {
  using Tiles = WideGradientTiles<kDim>;
  constexpr int kUnits = kDim / 8;
  ForEach<Tiles::kOthers * kUnits, Tiles::kThreads>([&](int unit) {
    const int row = unit / kUnits, column = unit % kUnits * 8;
    const bool is_valid = first + row < chunk.num_rows;
    WidenUnit(to + row * Tiles::kOtherStride + column,
              is_valid ? from + ((chunk.first_row + first + row) * heads + head) * kDim + column : nullptr);
  });
}

// x·x' and u·u' of the thread's rows and the others `own` and `own + 16`.
template <int kDim>
__device__ __forceinline__ void MultiplyPairsWide(const float* x, const float* others, int own, float (&out)[2][4]) {
  using Tiles = WideGradientTiles<kDim>;
#pragma unroll 1
  for (int c = 0; c < kDim; c += 4) {
    float other[2][4];
    LoadFour(other[0], others + own * Tiles::kOtherStride + c);
    LoadFour(other[1], others + (own + 16) * Tiles::kOtherStride + c);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float row[4];
      LoadFour(row, x + (c + e) * Tiles::kRowStride + Tiles::Query::Row());
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        out[0][r] = fmaf(row[r], other[0][e], out[0][r]);
        out[1][r] = fmaf(row[r], other[1][e], out[1][r]);
      }
    }
  }
}

// Weights of the block's rows and 32 of the other side, from `first` of the chunk on. `own`: what the thread's rows
// bring if they are queries; else `query_rows` gives it.
template <typename T, int kDim, bool kOfQueries>
__device__ __forceinline__ void WeighPairsWide(const WideRows<T, kDim, kOfQueries>& rows, const float2* query_rows,
                                               const float2 (&own)[4], int first, const float (&scores)[2][4],
                                               const float (&products)[2][4], float* derivatives, float* weights,
                                               float (&moved)[4]) {
  using Tiles = WideGradientTiles<kDim>;
  const int degree = rows.forward.degree, lane = threadIdx.x % 16;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int other = first + lane + half * 16;
    const float2 of_other = kOfQueries ? float2{} : query_rows[other];
    float derivative[4] = {}, weight[4] = {};
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int query = kOfQueries ? rows.Row(r) : other, key = kOfQueries ? other : rows.Row(r);
      if (key > query || query >= rows.chunk.num_rows) continue;
      const float2 brings = kOfQueries ? own[r] : of_other;
      const float score = scores[half][r], factor = brings.x * expf(Difference(rows.sums[query], rows.sums[key]));
      const float lower = factor * (degree == 2 ? score : score * score * score), dW = products[half][r] - brings.y;
      derivative[r] = degree * lower * dW;
      weight[r] = lower * score;
      moved[r] = fmaf(weight[r], dW, moved[r]);
    }
    const int at = (lane + half * 16) * Tiles::kRowStride + Tiles::Query::Row();
    *reinterpret_cast<float4*>(derivatives + at) = {derivative[0], derivative[1], derivative[2], derivative[3]};
    if constexpr (!kOfQueries) *reinterpret_cast<float4*>(weights + at) = {weight[0], weight[1], weight[2], weight[3]};
  }
}

// All pairs of the block's rows with one head of the other side.
template <typename T, int kDim, bool kOfQueries>
__device__ __forceinline__ void MeetRowsWide(const WideRows<T, kDim, kOfQueries>& rows, int head, const float* x,
                                             const float* u, float* buffer, const float2 (&own)[4], float (&moved)[4],
                                             WideQuerySums<kDim>& dx, WideQuerySums<kDim>& dv) {
  using Tiles = WideGradientTiles<kDim>;
  const RetentionArgs<T>& forward = rows.forward;
  float* other_x = buffer;
  float* other_u = other_x + Tiles::kOthers * Tiles::kOtherStride;
  float* derivatives = other_u + Tiles::kOthers * Tiles::kOtherStride;
  float* weights = derivatives + Tiles::kOthers * Tiles::kRowStride;
  const int heads = kOfQueries ? forward.heads_kv : forward.heads_q, lane = threadIdx.x % 16;
  const int begin = kOfQueries ? 0 : rows.first_row;
  const int end = kOfQueries ? min(rows.first_row + Tiles::kRows, rows.chunk.num_rows) : rows.chunk.num_rows;
#pragma unroll 1
  for (int first = begin; first < end; first += Tiles::kOthers) {
    __syncthreads();  // all are done with the rows before
    LoadOthersWide<T, kDim>(kOfQueries ? forward.K : forward.Q, heads, head, rows.chunk, first, other_x);
    LoadOthersWide<T, kDim>(kOfQueries ? forward.V : rows.args.dY, heads, head, rows.chunk, first, other_u);
    __syncthreads();  // the others are there
    float scores[2][4] = {}, products[2][4] = {};
    MultiplyPairsWide<kDim>(x, other_x, lane, scores);
    MultiplyPairsWide<kDim>(u, other_u, lane, products);
    WeighPairsWide<T, kDim, kOfQueries>(rows, rows.QueryRows(head), own, first, scores, products, derivatives, weights,
                                        moved);
    __syncthreads();  // weights are there
#pragma unroll 2
    for (int other = 0; other < Tiles::kOthers; ++other) {
      float of_rows[4];
      LoadFour(of_rows, derivatives + other * Tiles::kRowStride + Tiles::Query::Row());
      dx.Add(of_rows, other_x + other * Tiles::kOtherStride);
      if constexpr (!kOfQueries) {
        LoadFour(of_rows, weights + other * Tiles::kRowStride + Tiles::Query::Row());
        dv.Add(of_rows, other_u + other * Tiles::kOtherStride);
      }
    }
  }
}

// What the state before the chunk (the gradient after it) gives the rows; `through_state`: this thread's part of
// Σ w dW with the chunks that it stands for.
template <typename T, int kDim, bool kOfQueries>
__device__ __forceinline__ void MeetStateWide(const WideRows<T, kDim, kOfQueries>& rows, const float* x, const float* u,
                                              float* buffer, const float2 (&own)[4], float (&through_state)[4],
                                              WideQuerySums<kDim>& dx, WideQuerySums<kDim>& dv) {
  const int degree = rows.forward.degree;
  const int64_t state_row = rows.slot * RetentionStateRows(kDim, degree);
  const float* state =
      reinterpret_cast<const float*>(kOfQueries ? rows.forward.prefix : rows.args.suffix) + state_row * kDim;
  const float* z = (kOfQueries ? rows.forward.prefix_z : rows.args.suffix_z) + state_row;
  float z_weights[4], factors[4];
  const float2 last = rows.sums[rows.chunk.num_rows - 1];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const float2 sum = rows.sums[min(rows.Row(r), rows.chunk.num_rows - 1)];
    z_weights[r] = kOfQueries ? -own[r].y : 1.0f;
    factors[r] = kOfQueries ? own[r].x * expf(sum.x) : expf(Difference(last, sum));
  }
  if constexpr (kDim <= kMostFourthDim) {
    __shared__ FourthShared shared;
    if (degree == 4) {  // states hold what they count, gradients do not
      GradientFromStateFourth<kDim, !kOfQueries>(x, u, buffer, state, z, z_weights, shared, dx);
      if constexpr (!kOfQueries) QueryStateFourth<kDim, true>(x, buffer, state, z, shared, dv);
    }
  }
  if constexpr (std::is_same_v<PrefixElement<T>, float>) {  // other types have states of degree 4 alone
    if (degree == 2) {
      // z before a chunk lacks the multiplicity that S has there; gradients have it in both.
      GradientFromStateWide<kDim>(x, u, buffer, state, z, z_weights, kOfQueries ? 2.0f : 1.0f, dx);
      if constexpr (!kOfQueries) QueryStateWide<kDim>(x, buffer, state, z, dv);
    }
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    dx.Multiply(r, factors[r]);
    if constexpr (!kOfQueries) dv.Multiply(r, factors[r]);
    through_state[r] = dx.Dot(r, x) / static_cast<float>(degree);
  }
}

// Over the 16 threads that share rows.
__device__ __forceinline__ float SumOfRowWide(float x) {
#pragma unroll
  for (int offset = 8; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

// Grid (2 blocks, Hq) for queries, (2 blocks, Hk) for keys, which give dV too.
template <typename T, int kDim, bool kOfQueries>
__global__ void __launch_bounds__(WideGradientTiles<kDim>::kThreads, kDim < 128 ? 2 : 1)
    GradientOfRowsWide(BackwardArgs<T> args) {
  using Tiles = WideGradientTiles<kDim>;
  extern __shared__ __align__(16) float wide_shared[];
  float* x = wide_shared;
  float* u = x + kDim * Tiles::kRowStride;
  float* buffer = u + kDim * Tiles::kRowStride;
  const WideRows<T, kDim, kOfQueries> rows(args);
  if (rows.first_row >= rows.chunk.num_rows) return;
  const RetentionArgs<T>& forward = args.forward;
  const int head = blockIdx.y, heads = kOfQueries ? forward.heads_q : forward.heads_kv;
  LoadTransposedWide<T, kDim>(kOfQueries ? forward.Q : forward.K, heads, head, rows.chunk, rows.first_row, x);
  LoadTransposedWide<T, kDim>(kOfQueries ? args.dY : forward.V, heads, head, rows.chunk, rows.first_row, u);
  float2 own[4] = {};
  if constexpr (kOfQueries) {
#pragma unroll
    for (int r = 0; r < 4; ++r) own[r] = rows.QueryRows(head)[rows.Row(r)];
  }
  __syncthreads();  // the rows are there

  WideQuerySums<kDim> dx, dv;
  float through_state[4] = {}, moved[4] = {};
  if constexpr (std::is_same_v<PrefixElement<T>, float> || kDim <= kMostFourthDim) {
    const bool has_state = kOfQueries ? args.has_prefix && HasState(forward, rows.chunk)
                                      : args.has_suffix && HasGradient(args, rows.chunk);
    if (has_state) MeetStateWide<T, kDim, kOfQueries>(rows, x, u, buffer, own, through_state, dx, dv);
  }
  if constexpr (kOfQueries) {
    MeetRowsWide<T, kDim, kOfQueries>(rows, rows.head_kv, x, u, buffer, own, moved, dx, dv);
  } else {
#pragma unroll 1
    for (int q = head * rows.group; q < (head + 1) * rows.group; ++q)
      MeetRowsWide<T, kDim, kOfQueries>(rows, q, x, u, buffer, own, moved, dx, dv);
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const float state = SumOfRowWide(through_state[r]), pairs = SumOfRowWide(moved[r]);
    const int row = rows.Row(r);
    if (row >= rows.chunk.num_rows) continue;  // its lanes are done together
    if (threadIdx.x % 16 == 0) {
      const int64_t at = (static_cast<int64_t>(rows.block.chunk) * heads + head) * forward.chunk_rows + row;
      if constexpr (kOfQueries) args.query_sums[at] = state + pairs;
      if constexpr (!kOfQueries) args.key_sums[at] = {state, pairs};
    }
    const int64_t at = ((rows.chunk.first_row + row) * heads + head) * kDim;
    dx.StoreRow(r, 1.0f, (kOfQueries ? args.dQ : args.dK) + at);
    if constexpr (!kOfQueries) dv.StoreRow(r, 1.0f, args.dV + at);
  }
}

}  // namespace statehouse::kernels
