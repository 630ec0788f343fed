// The fold of fold_wide.cuh over rows of a ring, from the last to the first, 64 at a time, so that gates can be summed
// on the way; then the state is updated.
#include "kernels/power_retention/cuda/tail_fold.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/philox.cuh"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/decode_tail.cuh"
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
  int64_t normalizer, keys, values, gates;  // offsets within a slot
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

// Up or down to bf16, so that the mean is x; `random`: 16 bits. Infinities and NaN stay.
__device__ __forceinline__ uint32_t RoundStochastically(float x, uint32_t random) {
  const uint32_t bits = __float_as_uint(x);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits >> 16 : (bits + random) >> 16;
}

// kColumns neighbours of S in place: e^L S + sums. `element`: the first one's place within the layer's states.
template <int kColumns>
__device__ __forceinline__ void UpdateState(float* state, float decay, const float (&sums)[kColumns], uint2, uint2,
                                            int64_t) {
  auto& row = *reinterpret_cast<Neighbours<float, kColumns>*>(state);
  Neighbours<float, kColumns> updated = row;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) updated.x[c] = fmaf(decay, updated.x[c], sums[c]);
  row = updated;
}
template <int kColumns>
__device__ __forceinline__ void UpdateState(bf16* state, float decay, const float (&sums)[kColumns], uint2 key,
                                            uint2 position, int64_t element) {
  static_assert(kColumns <= 4);
  const uint4 drawn =
      Philox({static_cast<uint32_t>(element), static_cast<uint32_t>(element >> 32), position.x, position.y}, key);
  const uint32_t random[4] = {drawn.x & 0xffffu, drawn.x >> 16, drawn.y & 0xffffu, drawn.y >> 16};
  auto& row = *reinterpret_cast<Neighbours<uint16_t, kColumns>*>(state);
  Neighbours<uint16_t, kColumns> updated = row;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const float old = __uint_as_float(static_cast<uint32_t>(updated.x[c]) << 16);
    updated.x[c] = static_cast<uint16_t>(RoundStochastically(fmaf(decay, old, sums[c]), random[c]));
  }
  row = updated;
}

// Grid (tiles, Hk, sequences).
template <typename T, typename S, int kDim>
__global__ void __launch_bounds__(kThreads) FoldTail(TailFoldArgs args) {
  using Sums = WideFoldSums<kDim>;
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
        shared.batch);
    if (threadIdx.x < 32) WeighBatch<kDim>(gates, first, args.rows, shared);
    __syncthreads();  // the batch is there
    sums.Add(shared.batch);
  }
  const float decay = expf(static_cast<float>(shared.later));
  const int64_t first_row = h * RetentionStateRows(kDim) + int64_t{blockIdx.x} * 64 + Sums::Row() * 8;
  float* z = reinterpret_cast<float*>(slot + args.normalizer) + first_row;
  const uint2 key = {static_cast<uint32_t>(args.seed), static_cast<uint32_t>(args.seed >> 32)};
  const uint2 position = {static_cast<uint32_t>(state_end), static_cast<uint32_t>(state_end >> 32)};
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    if (threadIdx.x % 32 == j) z[j] = fmaf(decay, z[j], sums.z[j]);
    if (!Sums::HasColumns()) continue;
    const int64_t element = (first_row + j) * kDim + Sums::Column();
    UpdateState<Sums::kColumns>(reinterpret_cast<S*>(slot) + element, decay, sums.S[j], key, position, element);
  }
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
