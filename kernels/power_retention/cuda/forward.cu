// Checks a call, lays out its workspace, and chooses the instance.
#include "absl/strings/str_cat.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/call_args.cuh"
#include "kernels/power_retention/cuda/instances.h"
#include "kernels/power_retention/cuda/retention.h"
#include "kernels/power_retention/cuda/saved_states.cuh"
#include "kernels/power_retention/cuda/workspace.h"

namespace statehouse::kernels {

template <typename T, int kDim>
absl::Status QueueForward(const RetentionArgs<T>& args, bool has_state, cudaStream_t stream);
template <typename T>
absl::Status QueueForwardWide(const RetentionArgs<T>& args, int head_dim, bool has_state, cudaStream_t stream);

namespace {

template <typename T>
using QueueFunction = absl::Status (*)(const RetentionArgs<T>&, bool, cudaStream_t);

template <typename T>
QueueFunction<T> FindInstance(int head_dim) {
  switch (head_dim) {
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
    case 16:
      return QueueForward<T, 16>;
    case 32:
      return QueueForward<T, 32>;
#endif
    case 64:
      return QueueForward<T, 64>;
    case 128:
      return QueueForward<T, 128>;
    default:
      return nullptr;
  }
}

absl::Status CheckArgs(const CudaRetentionPlan& plan, const CudaRetentionForwardArgs& args) {
  const auto missing = [](const char* name) {
    return absl::InvalidArgumentError(absl::StrCat("power retention: ", name, " is null"));
  };
  if (args.Q == nullptr) return missing("Q");
  if (args.K == nullptr) return missing("K");
  if (args.V == nullptr) return missing("V");
  if (args.y == nullptr) return missing("y");
  if (args.workspace == nullptr) return missing("workspace");
  if ((args.initial_state == nullptr) != (args.initial_normalizer == nullptr))
    return missing(args.initial_state == nullptr ? "initial_state" : "initial_normalizer");
  if ((args.final_state == nullptr) != (args.final_normalizer == nullptr))
    return missing(args.final_state == nullptr ? "final_state" : "final_normalizer");
  if (plan.shape().degree != 2 && !plan.shape().has_states &&
      (args.initial_state != nullptr || args.final_state != nullptr)) {
    return absl::UnimplementedError(
        absl::StrCat("power retention on the GPU: degree ", plan.shape().degree,
                     " with an initial or a final state: has_states is not set in the shape"));
  }
  return absl::OkStatus();
}

template <typename T>
RetentionArgs<T> KernelArgs(const CudaRetentionPlan& plan, const CudaRetentionForwardArgs& args) {
  auto out = RetentionArgsOf<T>(plan, args, ForwardWorkspace(plan));
  out.folds_last = args.final_state != nullptr && plan.open_rows() == 0;
  out.leaves_last_open = plan.open_rows() > 0;
  out.y = static_cast<T*>(args.y);
  out.denominator = args.denominator;
  out.final_state = args.final_state;
  out.final_normalizer = args.final_normalizer;
  if (args.saved != nullptr) PointToSaved(SavedStates(plan), static_cast<char*>(args.saved), out);
  return out;
}

}  // namespace

bool HasForwardInstance(const CudaRetentionShape& shape) {
  const int d = shape.head_dim;
  if (shape.dtype == RetentionDtype::kBf16 && shape.degree == 2) return FindInstance<bf16>(d) != nullptr;
  return d == 16 || d == 32 || d == 64 || d == 128;
}

std::string ForwardInstanceNames() {
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
  return "head_dim 16, 32, 64, 128";
#else
  return "head_dim 16, 32, 64, 128; of bf16 and degree 2, 64 and 128 (others with -DSTATEHOUSE_CUDA_INSTANCES=all)";
#endif
}

absl::StatusOr<bool> UsesWgmma(const CudaRetentionShape& shape, RetentionPath path) {
  if (shape.head_dim < 64 || path == RetentionPath::kMmaSync) return false;
  int device = 0, major = 0, minor = 0;
  cudaError_t result = cudaGetDevice(&device);
  if (result == cudaSuccess) result = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (result == cudaSuccess) result = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (absl::Status status = CudaStatus(result, "cudaDeviceGetAttribute"); !status.ok()) return status;
  return major == 9 && minor == 0;
}

absl::Status CudaRetentionForward(const CudaRetentionPlan& plan, const CudaRetentionForwardArgs& args,
                                  cudaStream_t stream) {
  if (plan.num_rows() == 0) return absl::OkStatus();
  if (absl::Status status = CheckArgs(plan, args); !status.ok()) return status;
  const bool has_state = plan.has_long_sequence() || args.initial_state != nullptr || args.final_state != nullptr;
  const auto queue_wide = [&](auto element) {
    using T = decltype(element);
    return QueueForwardWide<T>(KernelArgs<T>(plan, args), plan.shape().head_dim, has_state, stream);
  };
  if (plan.shape().dtype == RetentionDtype::kFloat32) return queue_wide(float());
  if (plan.shape().dtype == RetentionDtype::kFp16) return queue_wide(half());
  if (plan.shape().degree != 2) return queue_wide(bf16());
  const QueueFunction<bf16> queue = FindInstance<bf16>(plan.shape().head_dim);
  RetentionArgs<bf16> kernel_args = KernelArgs<bf16>(plan, args);
  const absl::StatusOr<bool> has_wgmma = UsesWgmma(plan.shape(), args.path);
  if (!has_wgmma.ok()) return has_wgmma.status();
  kernel_args.has_wgmma = *has_wgmma;
  return queue(kernel_args, has_state, stream);
}

}  // namespace statehouse::kernels
