// A block takes 8 neighbouring rows of one head's state: those that share a scale, where there are scales.
#include "kernels/power_retention/cuda/decode_states.h"

#include "absl/strings/str_cat.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/state_elements.cuh"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 128;

struct SlotStateArgs {
  int64_t rests, scales, normalizer;  // offsets within a slot
  int d;
  int64_t rows;  // of a slot
};

__device__ __forceinline__ float GetElement(const char* slot, const SlotStateArgs& args, int64_t at, float) {
  return reinterpret_cast<const float*>(slot)[at];
}
__device__ __forceinline__ float GetElement(const char* slot, const SlotStateArgs& args, int64_t at, bf16) {
  return Join(reinterpret_cast<const uint16_t*>(slot)[at], reinterpret_cast<const int8_t*>(slot + args.rests)[at]);
}
__device__ __forceinline__ float GetElement(const char* slot, const SlotStateArgs& args, int64_t at, int8_t) {
  const bf16 scale = reinterpret_cast<const bf16*>(slot + args.scales)[at / (kScaleRows * args.d)];
  return JoinScaled(reinterpret_cast<const int8_t*>(slot)[at], reinterpret_cast<const int8_t*>(slot + args.rests)[at],
                    __bfloat162float(scale));
}

__device__ __forceinline__ void PutElement(char* slot, const SlotStateArgs& args, int64_t at, float x, float most,
                                           float) {
  reinterpret_cast<float*>(slot)[at] = x;
}
__device__ __forceinline__ void PutElement(char* slot, const SlotStateArgs& args, int64_t at, float x, float most,
                                           bf16) {
  const BfloatAndRest split = Split(x, kNearest);
  reinterpret_cast<uint16_t*>(slot)[at] = split.nearest;
  reinterpret_cast<int8_t*>(slot + args.rests)[at] = split.rest;
}
__device__ __forceinline__ void PutElement(char* slot, const SlotStateArgs& args, int64_t at, float x, float most,
                                           int8_t) {
  const float scale = ScaleFor(most);
  const ByteAndRest split = SplitScaled(x, scale, StepsOf(scale), kNearest, fabsf(x) == most);
  reinterpret_cast<int8_t*>(slot)[at] = split.nearest;
  reinterpret_cast<int8_t*>(slot + args.rests)[at] = split.rest;
  const int64_t group = int64_t{kScaleRows} * args.d;
  if (at % group == 0) reinterpret_cast<bf16*>(slot + args.scales)[at / group] = __float2bfloat16_rn(scale);
}

// Grid (Hk P / 8, slots).
template <typename S>
__global__ void __launch_bounds__(kThreads)
    ExportSlots(SlotStateArgs args, const char* const* slots, float* to_S, float* to_z) {
  const char* slot = slots[blockIdx.y];
  const int64_t first_row = int64_t{blockIdx.x} * kScaleRows, first = first_row * args.d,
                to_row = blockIdx.y * args.rows;
  const int num_rows = static_cast<int>(min(int64_t{kScaleRows}, args.rows - first_row));
  for (int i = threadIdx.x; i < num_rows * args.d; i += kThreads)
    to_S[to_row * args.d + first + i] = GetElement(slot, args, first + i, S());
  if (threadIdx.x < num_rows) {
    const int64_t row = first_row + threadIdx.x;
    to_z[to_row + row] = reinterpret_cast<const float*>(slot + args.normalizer)[row];
  }
}

// Grid (Hk P / 8, slots).
template <typename S>
__global__ void __launch_bounds__(kThreads)
    ImportSlots(SlotStateArgs args, char* const* slots, const float* from_S, const float* from_z) {
  __shared__ uint32_t most;
  char* slot = slots[blockIdx.y];
  const int64_t first_row = int64_t{blockIdx.x} * kScaleRows, first = first_row * args.d;
  const int64_t from_row = blockIdx.y * args.rows;
  const int num_rows = static_cast<int>(min(int64_t{kScaleRows}, args.rows - first_row));
  const float* from = from_S + from_row * args.d + first;
  if (threadIdx.x == 0) most = 0;
  __syncthreads();  // it is there
  if constexpr (std::is_same_v<S, int8_t>) {
    uint32_t own = 0;
    for (int i = threadIdx.x; i < num_rows * args.d; i += kThreads)
      own = max(own, __float_as_uint(from[i]) & 0x7fffffffu);
    atomicMax(&most, own);
    __syncthreads();  // the largest is known
  }
  for (int i = threadIdx.x; i < num_rows * args.d; i += kThreads)
    PutElement(slot, args, first + i, from[i], __uint_as_float(most), S());
  if (threadIdx.x < num_rows) {
    const int64_t row = first_row + threadIdx.x;
    reinterpret_cast<float*>(slot + args.normalizer)[row] = from_z[from_row + row];
  }
}

absl::Status CheckStates(const RetentionSlotLayout& layout, const void* slots, const void* S, const void* z) {
  if (!RetentionSlotHasState(layout.shape())) {
    return absl::UnimplementedError(absl::StrCat("power retention slots: degree ", layout.shape().degree,
                                                 " with head_dim ", layout.shape().head_dim, " has no state"));
  }
  if (slots == nullptr || S == nullptr || z == nullptr)
    return absl::InvalidArgumentError("power retention slots: slots, S or z is null");
  return absl::OkStatus();
}

SlotStateArgs KernelArgs(const RetentionSlotLayout& layout) {
  return {static_cast<int64_t>(layout.rests()), static_cast<int64_t>(layout.scales()),
          static_cast<int64_t>(layout.normalizer()), layout.shape().head_dim,
          layout.shape().heads_kv * RetentionStateRows(layout.shape().head_dim, layout.shape().degree)};
}

dim3 GridFor(const RetentionSlotLayout& layout, int num_slots) {
  const CudaRetentionSlotShape& shape = layout.shape();
  const int64_t rows = shape.heads_kv * RetentionStateRows(shape.head_dim, shape.degree);
  return dim3(static_cast<unsigned>((rows + kScaleRows - 1) / kScaleRows), num_slots);
}

// Calls visit(S()) for the type of a slot's state.
template <typename Visit>
void ForStateElement(const RetentionSlotLayout& layout, const Visit& visit) {
  switch (layout.shape().state_dtype) {
    case RetentionStateDtype::kFloat32:
      return visit(float());
    case RetentionStateDtype::kBf16:
      return visit(bf16());
    case RetentionStateDtype::kInt8:
      return visit(int8_t());
  }
}

}  // namespace

absl::Status CudaRetentionExportSlots(const RetentionSlotLayout& layout, const char* const* slots, int num_slots,
                                      float* S, float* z, cudaStream_t stream) {
  if (num_slots == 0) return absl::OkStatus();
  if (absl::Status status = CheckStates(layout, slots, S, z); !status.ok()) return status;
  ForStateElement(layout, [&](auto element) {
    ExportSlots<decltype(element)>
        <<<GridFor(layout, num_slots), kThreads, 0, stream>>>(KernelArgs(layout), slots, S, z);
  });
  return LaunchStatus("ExportSlots");
}

absl::Status CudaRetentionImportSlots(const RetentionSlotLayout& layout, char* const* slots, int num_slots,
                                      const float* S, const float* z, cudaStream_t stream) {
  if (num_slots == 0) return absl::OkStatus();
  if (absl::Status status = CheckStates(layout, slots, S, z); !status.ok()) return status;
  ForStateElement(layout, [&](auto element) {
    ImportSlots<decltype(element)>
        <<<GridFor(layout, num_slots), kThreads, 0, stream>>>(KernelArgs(layout), slots, S, z);
  });
  return LaunchStatus("ImportSlots");
}

}  // namespace statehouse::kernels
