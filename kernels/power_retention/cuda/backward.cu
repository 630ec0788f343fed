// Checks a call, lays out its workspace, and chooses the instance.
#include "kernels/power_retention/cuda/backward.h"

#include "absl/strings/str_cat.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/backward_args.cuh"
#include "kernels/power_retention/cuda/backward_workspace.h"
#include "kernels/power_retention/cuda/call_args.cuh"
#include "kernels/power_retention/cuda/instances.h"
#include "kernels/power_retention/cuda/saved_states.cuh"

namespace statehouse::kernels {

template <typename T, int kDim>
absl::Status QueueBackward(const BackwardArgs<T>& args, cudaStream_t stream);
template <typename T>
absl::Status QueueBackwardWide(const BackwardArgs<T>& args, int head_dim, cudaStream_t stream);

namespace {

// bf16 of degree 2: through tensor cores.
absl::Status QueueNarrow(const BackwardArgs<bf16>& args, int head_dim, cudaStream_t stream) {
  switch (head_dim) {
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
    case 16:
      return QueueBackward<bf16, 16>(args, stream);
    case 32:
      return QueueBackward<bf16, 32>(args, stream);
#endif
    case 64:
      return QueueBackward<bf16, 64>(args, stream);
    default:
      return QueueBackward<bf16, 128>(args, stream);
  }
}

absl::Status CheckPointers(const CudaRetentionBackwardArgs& args) {
  const struct {
    const char* name;
    const void* pointer;
  } needed[] = {{"Q", args.Q},
                {"K", args.K},
                {"V", args.V},
                {"y", args.y},
                {"dY", args.dY},
                {"dQ", args.dQ},
                {"dK", args.dK},
                {"dV", args.dV},
                {"denominator", args.denominator},
                {"workspace", args.workspace}};
  for (const auto& it : needed) {
    if (it.pointer == nullptr)
      return absl::InvalidArgumentError(absl::StrCat("power retention backward: ", it.name, " is null"));
  }
  return absl::OkStatus();
}

absl::Status CheckStates(const CudaRetentionShape& shape, const CudaRetentionBackwardArgs& args) {
  const struct {
    const char* state_name;
    const void* state;
    const char* normalizer_name;
    const void* normalizer;
  } pairs[] = {{"initial_state", args.initial_state, "initial_normalizer", args.initial_normalizer},
               {"dfinal_state", args.dfinal_state, "dfinal_normalizer", args.dfinal_normalizer},
               {"dinitial_state", args.dinitial_state, "dinitial_normalizer", args.dinitial_normalizer}};
  for (const auto& it : pairs) {
    if ((it.state == nullptr) != (it.normalizer == nullptr)) {
      return absl::InvalidArgumentError(
          absl::StrCat("power retention backward: ", it.state == nullptr ? it.state_name : it.normalizer_name,
                       " is null and ", it.state == nullptr ? it.normalizer_name : it.state_name, " is not"));
    }
    if (it.state != nullptr && shape.degree != 2 && shape.head_dim > kMostFourthDim) {
      return absl::UnimplementedError(absl::StrCat("power retention backward on the GPU: degree ", shape.degree,
                                                   ", head_dim ", shape.head_dim, " with ", it.state_name));
    }
  }
  return absl::OkStatus();
}

// Without a row the gradient of the initial state is that of the final one.
absl::Status PassStateThrough(const CudaRetentionPlan& plan, const CudaRetentionBackwardArgs& args,
                              cudaStream_t stream) {
  if (args.dinitial_state == nullptr) return absl::OkStatus();
  const size_t normalizer_bytes =
      4 * plan.num_sequences() * plan.shape().heads_kv * RetentionStateRows(plan.shape().head_dim, plan.shape().degree);
  const auto pass = [&](float* to, const float* from, size_t bytes) {
    const cudaError_t result = from == nullptr ? cudaMemsetAsync(to, 0, bytes, stream)
                                               : cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
    return CudaStatus(result, "cudaMemcpyAsync");
  };
  const size_t state_bytes = normalizer_bytes * plan.shape().head_dim;
  if (absl::Status status = pass(args.dinitial_state, args.dfinal_state, state_bytes); !status.ok()) return status;
  return pass(args.dinitial_normalizer, args.dfinal_normalizer, normalizer_bytes);
}

template <typename T>
BackwardArgs<T> KernelArgs(const CudaRetentionPlan& plan, const CudaRetentionBackwardArgs& args) {
  const bool has_states =
      args.initial_state != nullptr || args.dfinal_state != nullptr || args.dinitial_state != nullptr;
  const BackwardWorkspace parts(plan, has_states);
  char* workspace = static_cast<char*>(args.workspace);
  BackwardArgs<T> out = {};
  out.forward = RetentionArgsOf<T>(plan, args, parts);  // the pass whose chunk states are computed again
  out.y = static_cast<const T*>(args.y);
  out.denominator = args.denominator;
  out.dY = static_cast<const T*>(args.dY);
  out.dfinal_state = args.dfinal_state;
  out.dfinal_normalizer = args.dfinal_normalizer;
  out.dQ = static_cast<T*>(args.dQ);
  out.dK = static_cast<T*>(args.dK);
  out.dV = static_cast<T*>(args.dV);
  out.dlog_G = args.dlog_G;
  out.dinitial_state = args.dinitial_state;
  out.dinitial_normalizer = args.dinitial_normalizer;
  out.has_saved = args.saved != nullptr;
  if (out.has_saved)  // which is not written to
    PointToSaved(SavedStates(plan), static_cast<char*>(const_cast<void*>(args.saved)), out.forward);
  out.has_prefix = plan.has_long_sequence() || args.initial_state != nullptr;
  out.has_suffix = plan.has_long_sequence() || args.dfinal_state != nullptr || args.dinitial_state != nullptr;
  out.rows = reinterpret_cast<float2*>(workspace + parts.rows);
  out.fold_weights = reinterpret_cast<float*>(workspace + parts.fold_weights);
  out.query_sums = reinterpret_cast<float*>(workspace + parts.query_sums);
  out.key_sums = reinterpret_cast<float2*>(workspace + parts.key_sums);
  out.suffix = reinterpret_cast<PrefixElement<T>*>(workspace + parts.suffix);
  out.suffix_z = reinterpret_cast<float*>(workspace + parts.suffix_z);
  out.border = reinterpret_cast<float*>(workspace + parts.border);
  out.border_parts = parts.border_parts;
  return out;
}

}  // namespace

absl::Status CheckRetentionBackwardShape(const CudaRetentionShape& shape) {
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
  constexpr bool kHasAll = true;
#else
  constexpr bool kHasAll = false;
#endif
  const int d = shape.head_dim;
  const bool has_dim = d == 64 || d == 128 || (kHasAll && (d == 16 || d == 32));
  const bool has_degree = shape.degree == 2 || (shape.degree == 4 && (kHasAll || shape.dtype != RetentionDtype::kBf16));
  if (has_dim && has_degree) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(
      "power retention backward on the GPU: degree ", shape.degree, ", head_dim ", d, ", ",
      RetentionDtypeName(shape.dtype), ": this build has ",
      kHasAll ? "degrees 2 and 4 with head_dim 16, 32, 64, 128"
              : "degrees 2 and, of fp16 and float32, 4, with head_dim 64, 128 (16, 32 and degree 4 of bf16 with "
                "-DSTATEHOUSE_CUDA_INSTANCES=all)"));
}

absl::Status CudaRetentionBackward(const CudaRetentionPlan& plan, const CudaRetentionBackwardArgs& args,
                                   cudaStream_t stream) {
  const CudaRetentionShape& shape = plan.shape();
  if (absl::Status status = CheckRetentionBackwardShape(shape); !status.ok()) return status;
  if (plan.open_rows() > 0)
    return absl::UnimplementedError("power retention backward on the GPU: a plan with open rows");
  if (absl::Status status = CheckStates(shape, args); !status.ok()) return status;
  if (args.saved != nullptr && args.initial_state != nullptr && shape.degree != 2 && !shape.has_states) {
    return absl::InvalidArgumentError(
        "power retention backward: saved and initial_state of degree 4: has_states is not set in the shape");
  }
  if (plan.num_rows() == 0) return PassStateThrough(plan, args, stream);
  if (absl::Status status = CheckPointers(args); !status.ok()) return status;
  const auto queue_wide = [&](auto element) {
    using T = decltype(element);
    return QueueBackwardWide<T>(KernelArgs<T>(plan, args), shape.head_dim, stream);
  };
  if (shape.dtype == RetentionDtype::kFloat32) return queue_wide(float());
  if (shape.dtype == RetentionDtype::kFp16) return queue_wide(half());
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
  if (shape.degree != 2) return queue_wide(bf16());
#endif
  BackwardArgs<bf16> kernel_args = KernelArgs<bf16>(plan, args);
  const absl::StatusOr<bool> has_wgmma = UsesWgmma(shape, args.path);
  if (!has_wgmma.ok()) return has_wgmma.status();
  kernel_args.forward.has_wgmma = *has_wgmma;
  return QueueNarrow(kernel_args, shape.head_dim, stream);
}

}  // namespace statehouse::kernels
