// Checks a fold and chooses its instance.
#include "kernels/power_retention/cuda/tail_fold.h"

#include "kernels/power_retention/cuda/tail_fold.cuh"

namespace statehouse::kernels {

// tail_fold_int8.cu
extern template absl::Status QueueTailFold<bf16, int8_t>(const TailFoldArgs&, int, int, int, cudaStream_t);
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
extern template absl::Status QueueTailFold<half, int8_t>(const TailFoldArgs&, int, int, int, cudaStream_t);
extern template absl::Status QueueTailFold<float, int8_t>(const TailFoldArgs&, int, int, int, cudaStream_t);
#endif

// decode_fourth_*.cu
template <typename T, int kDim>
absl::Status QueueFoldTailFourth(const TailFoldArgs& args, int heads_kv, int num_sequences, cudaStream_t stream);

namespace {

// Degree 4; head_dim is 16 or 32.
template <typename T>
absl::Status QueueFourth(const TailFoldArgs& args, int head_dim, int heads_kv, int num_sequences, cudaStream_t stream) {
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
  return head_dim == 16 ? QueueFoldTailFourth<T, 16>(args, heads_kv, num_sequences, stream)
                        : QueueFoldTailFourth<T, 32>(args, heads_kv, num_sequences, stream);
#else
  return absl::UnimplementedError("power retention fold: degree 4 needs -DSTATEHOUSE_CUDA_INSTANCES=all");
#endif
}

#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
template <typename T>
constexpr bool kHasByteStates = true;
#else
template <typename T>
constexpr bool kHasByteStates = std::is_same_v<T, bf16>;
#endif

}  // namespace

absl::Status CudaRetentionFoldTail(const RetentionSlotLayout& layout, const CudaRetentionFoldTailArgs& args,
                                   cudaStream_t stream) {
  const CudaRetentionSlotShape& shape = layout.shape();
  if (!RetentionSlotHasState(shape)) {
    return absl::UnimplementedError(absl::StrCat("power retention fold: degree ", shape.degree, " with head_dim ",
                                                 shape.head_dim, " has no state"));
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
                            static_cast<int64_t>(layout.scales()),
                            static_cast<int64_t>(layout.normalizer()),
                            static_cast<int64_t>(layout.keys()),
                            static_cast<int64_t>(layout.values()),
                            static_cast<int64_t>(layout.gates())};
  const auto queue = [&](auto element) {
    using T = decltype(element);
    const int d = shape.head_dim, heads = shape.heads_kv, sequences = args.num_sequences;
    if (shape.degree == 4) return QueueFourth<T>(out, d, heads, sequences, stream);
    switch (shape.state_dtype) {
      case RetentionStateDtype::kFloat32:
        return QueueTailFold<T, float>(out, d, heads, sequences, stream);
      case RetentionStateDtype::kBf16:
        return QueueTailFold<T, bf16>(out, d, heads, sequences, stream);
      default:
        if constexpr (kHasByteStates<T>) return QueueTailFold<T, int8_t>(out, d, heads, sequences, stream);
        return absl::UnimplementedError(
            absl::StrCat("power retention fold: a state of int8 with rows of ", RetentionDtypeName(shape.dtype)));
    }
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
