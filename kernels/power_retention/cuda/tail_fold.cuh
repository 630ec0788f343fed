// The folds of fold_tf32.cuh and fold_wide.cuh over rows of a ring, from the last to the first, 64 at a time, so that
// gates can be summed on the way; then the state is updated (tail_fold_update.cuh).
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/decode_tail.cuh"
#include "kernels/power_retention/cuda/tail_fold_update.cuh"

namespace statehouse::kernels {

struct TailFoldArgs {
  char* const* slots;
  const int64_t* state_ends;
  int rows;
  uint64_t seed;
  int64_t tail_rows;
  int64_t rests, scales, normalizer, keys, values, gates;  // offsets within a slot
};

// Weights of rows [first, first + 64) of the chunk; rows behind them are in `later` already. One warp.
template <int kDim>
__device__ __forceinline__ void WeighBatch(const RingGates& gates, int first, int rows, TailFoldShared<kDim>& shared) {
  const int lane = threadIdx.x % 32;
  const double even = gates.At(first + 2 * lane, rows - 1), odd = gates.At(first + 2 * lane + 1, rows - 1);
  double sum = even + odd;
  for (int offset = 1; offset < 32; offset *= 2) {
    const double other = __shfl_down_sync(0xffffffffu, sum, offset);
    if (lane + offset < 32) sum += other;
  }
  const double after = shared.later + (sum - even - odd);
  const auto weight = [&](int row, double gate_sum) {
    return row < rows ? __expf(static_cast<float>(gate_sum)) : 0.0f;
  };
  shared.batch.weights[2 * lane] = weight(first + 2 * lane, after + odd);
  shared.batch.weights[2 * lane + 1] = weight(first + 2 * lane + 1, after);
  __syncwarp();  // all have read `later`
  if (lane == 0) shared.later += sum;
}

// Which sums a type and head size take.
template <typename T, int kDim>
inline constexpr bool kHasTf32Fold = sizeof(T) == 2 && kDim >= 64;

// Grid (tiles, Hk, sequences).
template <typename T, typename S, int kDim>
__global__ void __launch_bounds__(kWideFoldThreads) FoldTail(TailFoldArgs args) {
  using Sums = std::conditional_t < kHasTf32Fold<T, kDim>, Tf32FoldSums<kDim<64 ? 64 : kDim>, WideFoldSums<kDim>>;
  __shared__ __align__(16) TailFoldShared<kDim> shared;
  const TilePosition at = TileAt<kDim / 8>(blockIdx.x);
  const int h = blockIdx.y;
  char* slot = args.slots[blockIdx.z];
  const int64_t state_end = args.state_ends[blockIdx.z], head_row = h * args.tail_rows;
  const int size = static_cast<int>(args.tail_rows), start = static_cast<int>(state_end % args.tail_rows);
  const RingGates gates = {reinterpret_cast<const float*>(slot + args.gates) + head_row, start, size};
  if (threadIdx.x == 0) shared.later = 0;
  if (threadIdx.x < 8) shared.most[threadIdx.x] = 0;

  Sums sums;
  for (int first = (args.rows - 1) / kWideFoldBatch * kWideFoldBatch; first >= 0; first -= kWideFoldBatch) {
    __syncthreads();  // all are done with the batch before
    LoadWideBatch<T, kDim>(
        reinterpret_cast<const T*>(slot + args.keys), reinterpret_cast<const T*>(slot + args.values), at,
        [&](int row) {
          const int place = start + first + row;
          return first + row < args.rows ? head_row + (place < size ? place : place - size) : int64_t{-1};
        },
        [](int row, int unit) { return Sums::Unit(row, unit); }, shared.batch);
    if (threadIdx.x < 32) WeighBatch<kDim>(gates, first, args.rows, shared);
    __syncthreads();  // the batch is there
    sums.Add(shared.batch);
  }
  const float gates_sum = static_cast<float>(shared.later);
  const StateUpdate update = {expf(gates_sum),
                              expm1f(gates_sum),
                              {static_cast<uint32_t>(args.seed), static_cast<uint32_t>(args.seed >> 32)},
                              {static_cast<uint32_t>(state_end), static_cast<uint32_t>(state_end >> 32)}};
  const TailFoldState<S> to = {reinterpret_cast<S*>(slot), reinterpret_cast<int8_t*>(slot + args.rests),
                               reinterpret_cast<__nv_bfloat16*>(slot + args.scales),
                               reinterpret_cast<float*>(slot + args.normalizer)};
  const int64_t first_row = h * RetentionStateRows(kDim) + int64_t{blockIdx.x} * 64;
  if constexpr (std::is_same_v<S, int8_t>) {
    UpdateScaledTile(sums, shared, to, first_row, update);
  } else {
    UpdateTile(sums, shared, to, first_row, update);
  }
}

template <typename T, typename S>
absl::Status QueueTailFold(const TailFoldArgs& args, int d, int heads_kv, int num_sequences, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(RetentionStateRows(d) / 64), heads_kv, num_sequences);
  switch (d) {
    case 16:
      FoldTail<T, S, 16><<<grid, kWideFoldThreads, 0, stream>>>(args);
      break;
    case 32:
      FoldTail<T, S, 32><<<grid, kWideFoldThreads, 0, stream>>>(args);
      break;
    case 64:
      FoldTail<T, S, 64><<<grid, kWideFoldThreads, 0, stream>>>(args);
      break;
    case 128:
      FoldTail<T, S, 128><<<grid, kWideFoldThreads, 0, stream>>>(args);
      break;
    default:
      return absl::UnimplementedError(
          absl::StrCat("power retention fold: head_dim ", d, ": must be 16, 32, 64 or 128"));
  }
  return LaunchStatus("FoldTail");
}

}  // namespace statehouse::kernels
