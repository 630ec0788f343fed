// The folds of fold_tf32.cuh and fold_wide.cuh over rows of a ring, from the last to the first, 64 at a time, so that
// gates can be summed on the way; then the state is updated.
#include "kernels/power_retention/cuda/tail_fold.h"

#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/philox.cuh"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/decode_tail.cuh"
#include "kernels/power_retention/cuda/fold_tf32.cuh"
#include "kernels/power_retention/cuda/fold_wide.cuh"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = kWideFoldThreads;
constexpr int kBatch = kWideFoldBatch;

struct TailFoldArgs {
  char* const* slots;
  const int64_t* state_ends;
  int rows;
  uint64_t seed;
  int64_t tail_rows;
  int64_t rests, normalizer, keys, values, gates;  // offsets within a slot
};

template <int kDim>
struct TailFoldShared {
  WideFoldShared<kDim> batch;
  double later;  // Σ log_g of the rows behind the batch
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

// A float32 without its last 8 bits, in two parts: the nearest bf16, which decoding reads, and what that leaves, in
// units of 2^-8 of its last place.
struct BfloatAndRest {
  uint16_t nearest;
  int8_t rest;
};
__device__ __forceinline__ float Join(uint16_t nearest, int8_t rest) {
  return __uint_as_float((static_cast<uint32_t>(nearest) << 16) + (static_cast<int32_t>(rest) << 8));
}
// Rounds the last 8 bits up or down, so that the mean is x; `random`: 8 bits. Infinities and NaN stay.
__device__ __forceinline__ BfloatAndRest Split(float x, uint32_t random) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return {static_cast<uint16_t>(bits >> 16), 0};
  const uint32_t kept = (bits + random) & 0xffffff00u, nearest = (kept + 0x8000u) >> 16;
  return {static_cast<uint16_t>(nearest), static_cast<int8_t>(static_cast<int32_t>(kept - (nearest << 16)) >> 8)};
}

// What the update of a state needs beside the sums.
struct StateUpdate {
  float decay;  // e^L
  float loss;   // e^L - 1, in full precision where e^L is near 1: what a million open gates would make of its rounding
  uint2 key;    // of the rounding
  uint2 position;  // the state's end
};

// e^L old + added
__device__ __forceinline__ float Updated(float old, float added, const StateUpdate& update) {
  return update.decay < 0.5f ? fmaf(update.decay, old, added) : old + fmaf(update.loss, old, added);
}

// kColumns neighbours of S in place: e^L S + sums. `element`: the first one's place within the layer's states.
template <int kColumns>
__device__ __forceinline__ void UpdateState(float* state, int8_t*, const float (&sums)[kColumns],
                                            const StateUpdate& update, int64_t) {
  constexpr int kVector = kColumns < 4 ? kColumns : 4;
#pragma unroll
  for (int first = 0; first < kColumns; first += kVector) {
    auto& row = *reinterpret_cast<Neighbours<float, kVector>*>(state + first);
    Neighbours<float, kVector> updated = row;
#pragma unroll
    for (int c = 0; c < kVector; ++c) updated.x[c] = Updated(updated.x[c], sums[first + c], update);
    row = updated;
  }
}
template <int kColumns>
__device__ __forceinline__ void UpdateState(bf16* state, int8_t* rests, const float (&sums)[kColumns],
                                            const StateUpdate& update, int64_t element) {
  constexpr int kVector = kColumns < 8 ? kColumns : 8;
#pragma unroll
  for (int first = 0; first < kColumns; first += kVector) {
    const uint64_t place = element + first;
    const uint4 drawn =
        Philox({static_cast<uint32_t>(place), static_cast<uint32_t>(place >> 32), update.position.x, update.position.y},
               update.key);
    const uint32_t random[4] = {drawn.x, drawn.y, drawn.z, drawn.w};
    auto& row = *reinterpret_cast<Neighbours<uint16_t, kVector>*>(state + first);
    auto& rest_row = *reinterpret_cast<Neighbours<int8_t, kVector>*>(rests + first);
    Neighbours<uint16_t, kVector> updated = row;
    Neighbours<int8_t, kVector> updated_rests = rest_row;
#pragma unroll
    for (int c = 0; c < kVector; ++c) {
      const float next = Updated(Join(updated.x[c], updated_rests.x[c]), sums[first + c], update);
      const BfloatAndRest split = Split(next, random[c / 4] >> c % 4 * 8 & 0xffu);
      updated.x[c] = split.nearest;
      updated_rests.x[c] = split.rest;
    }
    row = updated;
    rest_row = updated_rests;
  }
}

// Which sums a type and head size take.
template <typename T, int kDim>
inline constexpr bool kHasTf32Fold = sizeof(T) == 2 && kDim >= 64;

// S and z of the tile, from its first row on. All threads call it.
template <typename S, int kDim>
__device__ __forceinline__ void UpdateTile(const WideFoldSums<kDim>& sums, WideFoldShared<kDim>&, S* states,
                                           int8_t* rests, float* z, int64_t first_row, const StateUpdate& update) {
  using Sums = WideFoldSums<kDim>;
  const int64_t row = first_row + Sums::Row() * 8;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const int64_t element = (row + j) * kDim + Sums::Column();
    float own[Sums::kColumns];
#pragma unroll
    for (int c = 0; c < Sums::kColumns; ++c) own[c] = sums.S[j][c];
    if (Sums::HasColumns()) UpdateState<Sums::kColumns>(states + element, rests + element, own, update, element);
  }
  if (threadIdx.x % 32 == 0) {
#pragma unroll
    for (int j = 0; j < 8; ++j) z[row + j] = Updated(z[row + j], sums.z[j], update);
  }
}
template <typename S, int kDim>
__device__ __forceinline__ void UpdateTile(const Tf32FoldSums<kDim>& sums, WideFoldShared<kDim>& shared, S* states,
                                           int8_t* rests, float* z, int64_t first_row, const StateUpdate& update) {
  using Sums = Tf32FoldSums<kDim>;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t element = (first_row + Sums::Row() + half * 8) * kDim + Sums::Column();
    float row[Sums::kColumns];
    sums.Get(half, row);
    UpdateState<Sums::kColumns>(states + element, rests + element, row, update, element);
  }
  __syncthreads();  // all are done with the last batch
  const float added = sums.SumNormalizer(shared);
  if (threadIdx.x < 64) z[first_row + threadIdx.x] = Updated(z[first_row + threadIdx.x], added, update);
}

// Grid (tiles, Hk, sequences).
template <typename T, typename S, int kDim>
__global__ void __launch_bounds__(kThreads) FoldTail(TailFoldArgs args) {
  using Sums = std::conditional_t < kHasTf32Fold<T, kDim>, Tf32FoldSums<kDim<64 ? 64 : kDim>, WideFoldSums<kDim>>;
  __shared__ __align__(16) TailFoldShared<kDim> shared;
  const TilePosition at = TileAt<kDim / 8>(blockIdx.x);
  const int h = blockIdx.y;
  char* slot = args.slots[blockIdx.z];
  const int64_t state_end = args.state_ends[blockIdx.z], head_row = h * args.tail_rows;
  const int size = static_cast<int>(args.tail_rows), start = static_cast<int>(state_end % args.tail_rows);
  const RingGates gates = {reinterpret_cast<const float*>(slot + args.gates) + head_row, start, size};
  if (threadIdx.x == 0) shared.later = 0;

  Sums sums;
  for (int first = (args.rows - 1) / kBatch * kBatch; first >= 0; first -= kBatch) {
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
  UpdateTile<S, kDim>(sums, shared.batch, reinterpret_cast<S*>(slot), reinterpret_cast<int8_t*>(slot + args.rests),
                      reinterpret_cast<float*>(slot + args.normalizer),
                      h * RetentionStateRows(kDim) + int64_t{blockIdx.x} * 64, update);
}

template <typename T, typename S>
absl::Status Queue(const TailFoldArgs& args, int d, int heads_kv, int num_sequences, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(RetentionStateRows(d) / 64), heads_kv, num_sequences);
  switch (d) {
    case 16:
      FoldTail<T, S, 16><<<grid, kThreads, 0, stream>>>(args);
      break;
    case 32:
      FoldTail<T, S, 32><<<grid, kThreads, 0, stream>>>(args);
      break;
    case 64:
      FoldTail<T, S, 64><<<grid, kThreads, 0, stream>>>(args);
      break;
    case 128:
      FoldTail<T, S, 128><<<grid, kThreads, 0, stream>>>(args);
      break;
    default:
      return absl::UnimplementedError(
          absl::StrCat("power retention fold: head_dim ", d, ": must be 16, 32, 64 or 128"));
  }
  return LaunchStatus("FoldTail");
}

}  // namespace

absl::Status CudaRetentionFoldTail(const RetentionSlotLayout& layout, const CudaRetentionFoldTailArgs& args,
                                   cudaStream_t stream) {
  const CudaRetentionSlotShape& shape = layout.shape();
  if (shape.degree != 2) {
    return absl::UnimplementedError(absl::StrCat("power retention fold: degree ", shape.degree, " has no state"));
  }
  if (args.num_sequences == 0) return absl::OkStatus();
  if (args.slots == nullptr || args.state_ends == nullptr) {
    return absl::InvalidArgumentError("power retention fold: slots or state_ends is null");
  }
  if (args.rows < 1 || args.rows > shape.tail_rows) {
    return absl::InvalidArgumentError(absl::StrCat("rows ", args.rows, ": must be 1 … tail_rows, ", shape.tail_rows));
  }
  const TailFoldArgs out = {args.slots,
                            args.state_ends,
                            static_cast<int>(args.rows),
                            args.seed,
                            shape.tail_rows,
                            static_cast<int64_t>(layout.rests()),
                            static_cast<int64_t>(layout.normalizer()),
                            static_cast<int64_t>(layout.keys()),
                            static_cast<int64_t>(layout.values()),
                            static_cast<int64_t>(layout.gates())};
  const auto queue = [&](auto element) {
    using T = decltype(element);
    return shape.state_dtype == RetentionStateDtype::kFloat32
               ? Queue<T, float>(out, shape.head_dim, shape.heads_kv, args.num_sequences, stream)
               : Queue<T, bf16>(out, shape.head_dim, shape.heads_kv, args.num_sequences, stream);
  };
  switch (shape.dtype) {
    case RetentionDtype::kBf16:
      return queue(bf16());
    case RetentionDtype::kFp16:
      return queue(half());
    default:
      return queue(float());
  }
}

}  // namespace statehouse::kernels
