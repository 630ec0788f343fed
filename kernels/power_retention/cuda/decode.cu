// Layout of slots, appending, and the choice of a decode instance.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/decode.cuh"
#include "kernels/power_retention/cuda/decode.h"
#include "kernels/power_retention/cuda/state_elements.cuh"

namespace statehouse::kernels {

template <typename T, typename S, int kDim>
absl::Status QueueDecode(const DecodeArgs& args, int num_sequences, cudaStream_t stream);
template <typename T, int kDim>
absl::Status QueueDecodeFourth(const DecodeArgs& args, int num_sequences, cudaStream_t stream);

namespace {

constexpr int kAppendThreads = 128;
constexpr int kMaxRows = 16;

using QueueFunction = absl::Status (*)(const DecodeArgs&, int, cudaStream_t);

template <typename T, typename S>
QueueFunction FindInstance(int head_dim) {
  switch (head_dim) {
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
    case 16:
      return QueueDecode<T, S, 16>;
    case 32:
      return QueueDecode<T, S, 32>;
#endif
    case 64:
      return QueueDecode<T, S, 64>;
    case 128:
      return QueueDecode<T, S, 128>;
    default:
      return nullptr;
  }
}

template <typename T>
QueueFunction FindFourthInstance(const CudaRetentionSlotShape& shape) {
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
  if (shape.head_dim == 16) return QueueDecodeFourth<T, 16>;
  if (shape.head_dim == 32) return QueueDecodeFourth<T, 32>;
#endif
  return nullptr;
}

template <typename T>
QueueFunction FindInstance(const CudaRetentionSlotShape& shape) {
  if (shape.degree == 4 && shape.head_dim <= kMostFourthDim) return FindFourthInstance<T>(shape);
  switch (shape.state_dtype) {
    case RetentionStateDtype::kFloat32:
      return FindInstance<T, float>(shape.head_dim);
    case RetentionStateDtype::kBf16:
      return FindInstance<T, bf16>(shape.head_dim);
    case RetentionStateDtype::kInt8:
      return FindInstance<T, int8_t>(shape.head_dim);
  }
  return nullptr;
}

QueueFunction FindInstance(const CudaRetentionSlotShape& shape) {
  switch (shape.dtype) {
    case RetentionDtype::kBf16:
      return FindInstance<bf16>(shape);
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
    case RetentionDtype::kFp16:
      return FindInstance<half>(shape);
    case RetentionDtype::kFloat32:
      return FindInstance<float>(shape);
#endif
    default:
      return nullptr;
  }
}

int StateElementBytes(const CudaRetentionSlotShape& shape) {
  return shape.state_dtype == RetentionStateDtype::kFloat32 ? 4
         : shape.state_dtype == RetentionStateDtype::kBf16  ? 2
                                                            : 1;
}

// Grid (Hk, new rows, sequences).
template <typename T>
__global__ void __launch_bounds__(kAppendThreads)
    AppendRows(DecodeArgs args, int d, const T* K, const T* V, const float* log_G) {
  const int h = blockIdx.x, new_row = blockIdx.y, sequence = blockIdx.z;
  char* slot = args.slots[sequence];
  const int64_t from = (int64_t{sequence} * args.num_rows + new_row) * args.heads_kv + h;
  const int64_t to = h * args.tail_rows + (args.positions[sequence] + new_row) % args.tail_rows;
  for (int i = threadIdx.x; i < d; i += kAppendThreads) {
    reinterpret_cast<T*>(slot + args.keys)[to * d + i] = K[from * d + i];
    reinterpret_cast<T*>(slot + args.values)[to * d + i] = V[from * d + i];
  }
  if (threadIdx.x == 0) reinterpret_cast<float*>(slot + args.gates)[to] = log_G == nullptr ? 0.0f : log_G[from];
}

DecodeArgs KernelArgs(const RetentionSlotLayout& layout, const CudaRetentionSlots& slots) {
  const CudaRetentionSlotShape& shape = layout.shape();
  DecodeArgs out = {};
  out.slots = slots.slots;
  out.positions = slots.positions;
  out.state_ends = slots.state_ends;
  out.num_rows = slots.num_rows;
  out.heads_q = shape.heads_q;
  out.heads_kv = shape.heads_kv;
  out.tail_rows = shape.tail_rows;
  out.scales = layout.scales();
  out.normalizer = layout.normalizer();
  out.keys = layout.keys();
  out.values = layout.values();
  out.gates = layout.gates();
  out.scale_squared = shape.scale * shape.scale;
  out.degree = shape.degree;
  out.tail_parts = static_cast<int>((shape.tail_rows + kTailPart - 1) / kTailPart);
  out.row_groups = (shape.heads_q / shape.heads_kv * slots.num_rows + kDecodeRows - 1) / kDecodeRows;
  return out;
}

absl::Status CheckSlots(const CudaRetentionSlots& slots) {
  if (slots.slots == nullptr || slots.positions == nullptr || slots.state_ends == nullptr) {
    return absl::InvalidArgumentError("power retention decode: slots, positions or state_ends is null");
  }
  if (slots.num_rows < 1 || slots.num_rows > kMaxRows) {
    return absl::InvalidArgumentError(absl::StrCat("num_rows ", slots.num_rows, ": must be 1 … ", kMaxRows));
  }
  return absl::OkStatus();
}

}  // namespace

const char* RetentionStateDtypeName(RetentionStateDtype dtype) {
  switch (dtype) {
    case RetentionStateDtype::kFloat32:
      return "float32";
    case RetentionStateDtype::kBf16:
      return "bf16";
    case RetentionStateDtype::kInt8:
      return "int8";
  }
  return "unknown";
}

absl::StatusOr<RetentionSlotLayout> RetentionSlotLayout::Make(const CudaRetentionSlotShape& shape) {
  if (shape.heads_kv < 1 || shape.heads_q < 1 || shape.heads_q % shape.heads_kv != 0) {
    return absl::InvalidArgumentError(absl::StrCat("heads_q ", shape.heads_q, ", heads_kv ", shape.heads_kv,
                                                   ": heads_q must be a positive multiple of heads_kv"));
  }
  if (shape.tail_rows < kMaxRows) {
    return absl::InvalidArgumentError(absl::StrCat("tail_rows ", shape.tail_rows, ": must be at least ", kMaxRows));
  }
  if (shape.degree != 2 && shape.degree != 4) {
    return absl::InvalidArgumentError(absl::StrCat("degree ", shape.degree, ": must be 2 or 4"));
  }
  if (!std::isfinite(shape.scale) || shape.scale < 0) {
    return absl::InvalidArgumentError(absl::StrCat("scale ", shape.scale, ": must be positive, or 0 (1/sqrt(d))"));
  }
  const bool has_state = RetentionSlotHasState(shape);
  if (shape.degree == 4 && has_state && shape.state_dtype != RetentionStateDtype::kFloat32) {
    return absl::UnimplementedError(absl::StrCat("power retention decode on the GPU: a state of degree 4 in ",
                                                 RetentionStateDtypeName(shape.state_dtype), "; there is float32"));
  }
  if (FindInstance(shape) == nullptr) {
    return absl::UnimplementedError(absl::StrCat("power retention decode on the GPU: head_dim ", shape.head_dim, ", ",
                                                 RetentionDtypeName(shape.dtype), ": this build has ",
                                                 FindInstance<bf16, float>(16) != nullptr
                                                     ? "bf16, fp16 and float32 with head_dim 16, 32, 64, 128"
                                                     : "bf16 with head_dim 64, 128"));
  }
  RetentionSlotLayout layout;
  layout.shape_ = shape;
  if (shape.scale == 0) layout.shape_.scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
  const size_t rows = has_state ? RetentionStateRows(shape.head_dim, shape.degree) * shape.heads_kv : 0;
  const size_t d = shape.head_dim, element = shape.dtype == RetentionDtype::kFloat32 ? 4 : 2;
  const size_t tail = shape.tail_rows * shape.heads_kv;
  const auto take = [&](size_t size) {
    const size_t at = layout.bytes_;
    layout.bytes_ += (size + 255) / 256 * 256;
    return at;
  };
  take(rows * d * StateElementBytes(shape));
  layout.rests_ = take(shape.state_dtype == RetentionStateDtype::kFloat32 ? 0 : rows * d);
  layout.scales_ = take(shape.state_dtype == RetentionStateDtype::kInt8 ? rows / kScaleRows * 2 : 0);
  layout.normalizer_ = take(rows * 4);
  layout.keys_ = take(tail * d * element);
  layout.values_ = take(tail * d * element);
  layout.gates_ = take(tail * 4);
  return layout;
}

absl::Status CudaRetentionAppend(const RetentionSlotLayout& layout, const CudaRetentionSlots& slots, const void* K,
                                 const void* V, const float* log_G, cudaStream_t stream) {
  if (slots.num_sequences == 0) return absl::OkStatus();
  if (absl::Status status = CheckSlots(slots); !status.ok()) return status;
  if (K == nullptr || V == nullptr) return absl::InvalidArgumentError("power retention append: K or V is null");
  const dim3 grid(layout.shape().heads_kv, slots.num_rows, slots.num_sequences);
  const DecodeArgs args = KernelArgs(layout, slots);
  const int d = layout.shape().head_dim;
  if (layout.shape().dtype == RetentionDtype::kFloat32) {
    AppendRows<<<grid, kAppendThreads, 0, stream>>>(args, d, static_cast<const uint32_t*>(K),
                                                    static_cast<const uint32_t*>(V), log_G);
  } else {
    AppendRows<<<grid, kAppendThreads, 0, stream>>>(args, d, static_cast<const uint16_t*>(K),
                                                    static_cast<const uint16_t*>(V), log_G);
  }
  return LaunchStatus("AppendRows");
}

int RetentionDecodeSplits(const RetentionSlotLayout& layout, int num_sequences, int num_multiprocessors) {
  const CudaRetentionSlotShape& shape = layout.shape();
  if (!RetentionSlotHasState(shape)) return 0;
  if (shape.degree == 4) {  // two blocks for each multiprocessor
    const int64_t tiles = (RetentionStateRows(shape.head_dim, 4) + 63) / 64, all = int64_t{2} * num_multiprocessors;
    return static_cast<int>(std::clamp<int64_t>(all / (int64_t{num_sequences} * shape.heads_kv), 1, tiles));
  }
  const int64_t row_bytes = shape.head_dim * StateElementBytes(shape);
  const int64_t state_bytes = RetentionStateRows(shape.head_dim) * row_bytes;
  const int64_t stages = (state_bytes + 4095) / 4096;  // about: what a warp reads at a time
  const int64_t heads = int64_t{num_sequences} * shape.heads_kv;
  // Where the batch is small, blocks for 6 of 10 multiprocessors, so that the next layer's find room beside them. Where
  // it is large, about seven blocks for each multiprocessor, so that the last ones to run leave little idle, but no
  // more than one thread adds. Measured: docs/gpu-kernels.md.
  const int64_t small = num_multiprocessors * 6 / 10 / heads, large = (7 * num_multiprocessors + heads - 1) / heads;
  const int64_t most = std::max<int64_t>(stages / kDecodeWarps, 1);
  const int64_t splits = std::clamp<int64_t>(std::max(small, std::min<int64_t>(large, kFewParts)), 1, most);
  // The warps of a block take equally many stages.
  const int64_t rounds = (stages + splits * kDecodeWarps - 1) / (splits * kDecodeWarps);
  return static_cast<int>((stages + rounds * kDecodeWarps - 1) / (rounds * kDecodeWarps));
}

size_t RetentionDecodeWorkspace(const RetentionSlotLayout& layout, int num_sequences, int num_rows, int splits) {
  CudaRetentionSlots slots;
  slots.num_rows = num_rows;
  const DecodeArgs args = KernelArgs(layout, slots);
  return size_t{4} * num_sequences * args.heads_kv * args.row_groups * (args.tail_parts + splits) * kDecodeRows *
         (layout.shape().head_dim + 1);
}

absl::Status CudaRetentionDecode(const RetentionSlotLayout& layout, const CudaRetentionSlots& slots,
                                 const CudaRetentionDecodeArgs& args, cudaStream_t stream) {
  if (slots.num_sequences == 0) return absl::OkStatus();
  if (absl::Status status = CheckSlots(slots); !status.ok()) return status;
  if (args.q == nullptr || args.y == nullptr || args.workspace == nullptr) {
    return absl::InvalidArgumentError("power retention decode: q, y or workspace is null");
  }
  DecodeArgs out = KernelArgs(layout, slots);
  int device = 0, multiprocessors = 0, major = 0;
  if (absl::Status status = CudaStatus(cudaGetDevice(&device), "cudaGetDevice"); !status.ok()) return status;
  const auto attribute = [&](int* value, cudaDeviceAttr name) {
    return CudaStatus(cudaDeviceGetAttribute(value, name, device), "cudaDeviceGetAttribute");
  };
  if (absl::Status status = attribute(&multiprocessors, cudaDevAttrMultiProcessorCount); !status.ok()) return status;
  if (absl::Status status = attribute(&major, cudaDevAttrComputeCapabilityMajor); !status.ok()) return status;
  out.overlaps = major >= 9;
  out.is_settled = args.is_settled;
  out.splits = args.splits != 0 ? args.splits : RetentionDecodeSplits(layout, slots.num_sequences, multiprocessors);
  if (!RetentionSlotHasState(layout.shape())) out.splits = 0;
  out.q = args.q;
  out.y = args.y;
  out.parts = static_cast<float*>(args.workspace);
  const int64_t parts = int64_t{slots.num_sequences} * out.heads_kv * out.row_groups * (out.tail_parts + out.splits);
  out.denominators = out.parts + parts * kDecodeRows * layout.shape().head_dim;
  return FindInstance(layout.shape())(out, slots.num_sequences, stream);
}

}  // namespace statehouse::kernels
