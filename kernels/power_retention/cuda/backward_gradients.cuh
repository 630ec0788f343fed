// Gradients of 128 rows of one head: first what the chunk state gives them (backward_state.cuh), then pairs of rows of
// the chunk (backward_pairs.cuh).
//   shared: in turn z, tiles of S, buffers of tiles of rows; X and U, two tiles each; what those buffers' rows bring
#pragma once

#include <cuda_runtime.h>

#include "kernels/power_retention/cuda/backward_args.cuh"
#include "kernels/power_retention/cuda/backward_pairs.cuh"
#include "kernels/power_retention/cuda/backward_state.cuh"

namespace statehouse::kernels {

// x·dx / 2 over this lane's columns of its two rows: how much of Σ w dW came with what dx holds so far.
template <typename T, int kDim>
__device__ __forceinline__ void DotRows(const char* x, const float (&dx)[kDim / 8][4], float (&out)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = LaneRow() + half * 8;
    float sum = 0;
#pragma unroll
    for (int nt = 0; nt < kDim / 8; ++nt) {
      const uint32_t pair = *reinterpret_cast<const uint32_t*>(x + TileOffset(row, nt * 8) + threadIdx.x % 4 * 4);
      sum += Pair<T>::Low(pair) * dx[nt][2 * half] + Pair<T>::High(pair) * dx[nt][2 * half + 1];
    }
    out[half] = 0.5f * sum;
  }
}

__device__ __forceinline__ float SumOfRow(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Where a row's Σ w dW stands.
template <typename T, int kDim, GradientOf kOf>
__device__ __forceinline__ int64_t SumAt(const PairBlock<T, kDim, kOf>& pairs, int row) {
  const RetentionArgs<T>& forward = pairs.args.forward;
  const int heads = kOf == GradientOf::kQueries ? forward.heads_q : forward.heads_kv;
  return (static_cast<int64_t>(pairs.block.chunk) * heads + blockIdx.y) * forward.chunk_rows + row;
}

// Stores what moved through the state, to have the registers back.
template <typename T, int kDim, GradientOf kOf>
__device__ __forceinline__ void StoreStateSums(const PairBlock<T, kDim, kOf>& pairs, const float (&through_state)[2]) {
  if constexpr (kOf != GradientOf::kValues) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float state = SumOfRow(through_state[half]);
      const int row = pairs.group_row + LaneRow() + half * 8;
      if (threadIdx.x % 4 != 0 || row >= pairs.chunk.num_rows) continue;
      if constexpr (kOf == GradientOf::kQueries) {
        pairs.args.query_sums[SumAt(pairs, row)] = state;
      } else {
        pairs.args.key_sums[SumAt(pairs, row)].x = state;
      }
    }
  }
}

// Stores the rows' gradients and what they moved within the chunk (`moved` is twice that).
template <typename T, int kDim, GradientOf kOf>
__device__ __forceinline__ void StoreGradients(const PairBlock<T, kDim, kOf>& pairs, const float (&moved)[2],
                                               const float (&sums)[kDim / 8][4]) {
  const BackwardArgs<T>& args = pairs.args;
  const int t = threadIdx.x % 4;
  constexpr bool kOfQueries = kOf == GradientOf::kQueries;
  T* to = kOfQueries ? args.dQ : kOf == GradientOf::kKeys ? args.dK : args.dV;
  const int heads = kOfQueries ? args.forward.heads_q : args.forward.heads_kv;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float own = 0.5f * SumOfRow(moved[half]);
    const int row = pairs.group_row + LaneRow() + half * 8;
    if (row >= pairs.chunk.num_rows) continue;
    if (t == 0) {  // the same thread stored the state's part
      if constexpr (kOfQueries) args.query_sums[SumAt(pairs, row)] += own;
      if constexpr (kOf == GradientOf::kKeys) args.key_sums[SumAt(pairs, row)].y = own;
    }
    uint32_t* out = reinterpret_cast<uint32_t*>(to + ((pairs.chunk.first_row + row) * heads + blockIdx.y) * kDim) + t;
#pragma unroll
    for (int nt = 0; nt < kDim / 8; ++nt) out[nt * 4] = Pair<T>::Pack(sums[nt][2 * half], sums[nt][2 * half + 1]);
  }
}

// Grid (blocks, Hq) for queries, (blocks, Hk) for keys and values.
template <typename T, int kDim, GradientOf kOf, bool kSm90>
__global__ void __launch_bounds__(PairTiles<kDim, kOf, kSm90>::kThreads, PairTiles<kDim, kOf, kSm90>::kMinBlocks)
    GradientOfRows(BackwardArgs<T> args) {
  if constexpr (!kSm90 || kHasWgmma) {
    using Tiles = PairTiles<kDim, kOf, kSm90>;
    using State = StateTiles<T, kDim, kSm90, Tiles::kStages, Tiles::kThreads>;
    extern __shared__ __align__(1024) char unaligned[];
    __shared__ typename State::Barriers barriers;
    char* buffers = unaligned + (1024 - SharedAddress(unaligned) % 1024) % 1024;
    char* x = buffers + Tiles::kRightBytes;
    char* u = x + Tiles::kOwnBytes;
    float2* columns = reinterpret_cast<float2*>(x + (Tiles::kNeedsU ? 2 : 1) * Tiles::kOwnBytes);
    constexpr bool kOfQueries = kOf == GradientOf::kQueries;
    const PairBlock<T, kDim, kOf> pairs(args);
    const char* own_x = x + pairs.warpgroup * kTileBytes<kDim>;  // this warpgroup's rows
    const char* own_u = u + pairs.warpgroup * kTileBytes<kDim>;
    const RetentionArgs<T>& forward = args.forward;

    const int heads = kOfQueries ? forward.heads_q : forward.heads_kv;
    const int64_t first = ((pairs.chunk.first_row + pairs.block.first_row) * heads + blockIdx.y) * kDim;
    const int64_t stride = int64_t{heads} * kDim;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t at = first + half * kTokenTile * stride;
      const int valid = pairs.num_rows - half * kTokenTile, offset = half * kTileBytes<kDim>;
      LoadOperand<T, kDim, Tiles::kThreads>(SharedAddress(x) + offset, (kOfQueries ? forward.Q : forward.K) + at,
                                            stride, valid);
      if constexpr (Tiles::kNeedsU) {
        LoadOperand<T, kDim, Tiles::kThreads>(SharedAddress(u) + offset, (kOfQueries ? args.dY : forward.V) + at,
                                              stride, valid);
      }
    }
    CopyCommit();

    PairRows rows = {};
    const int lane_row = pairs.block.first_row + static_cast<int>(threadIdx.x) / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane_row + half * 8;
      if constexpr (kOfQueries) {
        rows.sums[half] = pairs.sums[row];
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
      if constexpr (kSm90) FenceSharedForProducts();
      __syncthreads();  // X, U, z and the barriers are there
      if constexpr (Tiles::kNeedsU) {
        const float factors[2] = {kOfQueries ? -2 * rows.deltas[0] : 2.0f, kOfQueries ? -2 * rows.deltas[1] : 2.0f};
        GradientFromNormalizer<T, kDim>(SharedAddress(own_x), buffers, factors, sums);
        if constexpr (kSm90) FenceSharedForProducts();  // bulk copies follow ordinary accesses
        __syncthreads();                                // z may be overwritten
      }
      State tiles(barriers, SharedAddress(buffers), state);
      if constexpr (Tiles::kNeedsU) {
        GradientFromState<T, kDim, kSm90>(tiles, own_x, own_u, sums);
      } else {
        ValuesFromState<T, kDim, kSm90>(tiles, own_x, sums);
      }
      const float2 last = pairs.sums[pairs.chunk.num_rows - 1];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float factor = kOfQueries ? rows.factors[half] * expf(rows.sums[half].x)
                                        : expf(Difference(last, pairs.sums[lane_row + half * 8]));
#pragma unroll
        for (int nt = 0; nt < kDim / 8; ++nt) sums[nt][2 * half] *= factor, sums[nt][2 * half + 1] *= factor;
      }
      if constexpr (Tiles::kNeedsU) DotRows<T, kDim>(own_x, sums, through_state);
      CopyWait<0>();
      __syncthreads();  // tiles of the state may be overwritten
    }
    StoreStateSums(pairs, through_state);
    if constexpr (kSm90) {
#ifdef STATEHOUSE_HAS_WGMMA
      MeetTilesSm90<T, kDim, kOf>(pairs, rows, SharedAddress(own_x), SharedAddress(own_u), SharedAddress(buffers),
                                  columns, moved, sums);
#endif
    } else {
      MeetTiles<T, kDim, kOf>(pairs, rows, SharedAddress(own_x), SharedAddress(own_u), SharedAddress(buffers), columns,
                              moved, sums);
    }
    StoreGradients(pairs, moved, sums);
  }
}

}  // namespace statehouse::kernels
