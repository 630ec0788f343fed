// Checks a call, lays out its workspace, and chooses the instance.
#include "kernels/power_retention/cuda/backward.h"

#include "absl/strings/str_cat.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/backward_args.cuh"
#include "kernels/power_retention/cuda/backward_workspace.h"

namespace statehouse::kernels {

template <typename T, int kDim>
absl::Status QueueBackward(const BackwardArgs<T>& args, cudaStream_t stream);

namespace {

using QueueFunction = absl::Status (*)(const BackwardArgs<bf16>&, cudaStream_t);

QueueFunction FindInstance(const CudaRetentionShape& shape) {
  if (shape.dtype != RetentionDtype::kBf16) return nullptr;
  switch (shape.head_dim) {
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
    case 16:
      return QueueBackward<bf16, 16>;
    case 32:
      return QueueBackward<bf16, 32>;
#endif
    case 64:
      return QueueBackward<bf16, 64>;
    case 128:
      return QueueBackward<bf16, 128>;
    default:
      return nullptr;
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

absl::Status CheckStates(const CudaRetentionBackwardArgs& args) {
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
  }
  return absl::OkStatus();
}

// Without a row the gradient of the initial state is that of the final one.
absl::Status PassStateThrough(const CudaRetentionPlan& plan, const CudaRetentionBackwardArgs& args,
                              cudaStream_t stream) {
  if (args.dinitial_state == nullptr) return absl::OkStatus();
  const size_t normalizer_bytes =
      4 * plan.num_sequences() * plan.shape().heads_kv * RetentionStateRows(plan.shape().head_dim);
  const auto pass = [&](float* to, const float* from, size_t bytes) {
    const cudaError_t result = from == nullptr ? cudaMemsetAsync(to, 0, bytes, stream)
                                               : cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
    return CudaStatus(result, "cudaMemcpyAsync");
  };
  const size_t state_bytes = normalizer_bytes * plan.shape().head_dim;
  if (absl::Status status = pass(args.dinitial_state, args.dfinal_state, state_bytes); !status.ok()) return status;
  return pass(args.dinitial_normalizer, args.dfinal_normalizer, normalizer_bytes);
}

// The forward pass whose chunk states are computed again.
RetentionArgs<bf16> ForwardArgs(const CudaRetentionPlan& plan, const CudaRetentionBackwardArgs& args,
                                const BackwardWorkspace& parts) {
  char* workspace = static_cast<char*>(args.workspace);
  RetentionArgs<bf16> out = {};
  out.chunks = static_cast<const ChunkEntry*>(plan.chunk_table());
  out.blocks = static_cast<const BlockEntry*>(plan.block_table());
  out.first_chunks = plan.sequence_table();
  out.num_chunks = plan.num_chunks();
  out.num_blocks = plan.num_blocks();
  out.num_sequences = plan.num_sequences();
  out.heads_q = plan.shape().heads_q;
  out.heads_kv = plan.shape().heads_kv;
  out.chunk_rows = parts.chunk_rows;
  out.scale_squared = plan.shape().scale * plan.shape().scale;
  out.degree = plan.shape().degree;
  out.fold_heads = 1;
  out.folds_first = true;
  out.Q = static_cast<const bf16*>(args.Q);
  out.K = static_cast<const bf16*>(args.K);
  out.V = static_cast<const bf16*>(args.V);
  out.log_G = args.log_G;
  out.initial_state = args.initial_state;
  out.initial_normalizer = args.initial_normalizer;
  out.sums = reinterpret_cast<float2*>(workspace + parts.sums);
  out.key_factors = reinterpret_cast<float*>(workspace + parts.key_factors);
  out.decay = reinterpret_cast<float*>(workspace + parts.decay);
  out.keys = reinterpret_cast<bf16*>(workspace + parts.keys);
  out.values = reinterpret_cast<bf16*>(workspace + parts.values);
  out.local = reinterpret_cast<float*>(workspace + parts.local);
  out.local_z = reinterpret_cast<float*>(workspace + parts.local_z);
  out.prefix = reinterpret_cast<bf16*>(workspace + parts.prefix);
  out.prefix_z = reinterpret_cast<float*>(workspace + parts.prefix_z);
  return out;
}

BackwardArgs<bf16> KernelArgs(const CudaRetentionPlan& plan, const CudaRetentionBackwardArgs& args, bool has_states) {
  const BackwardWorkspace parts(plan, has_states);
  char* workspace = static_cast<char*>(args.workspace);
  BackwardArgs<bf16> out = {};
  out.forward = ForwardArgs(plan, args, parts);
  out.y = static_cast<const bf16*>(args.y);
  out.denominator = args.denominator;
  out.dY = static_cast<const bf16*>(args.dY);
  out.dfinal_state = args.dfinal_state;
  out.dfinal_normalizer = args.dfinal_normalizer;
  out.dQ = static_cast<bf16*>(args.dQ);
  out.dK = static_cast<bf16*>(args.dK);
  out.dV = static_cast<bf16*>(args.dV);
  out.dlog_G = args.dlog_G;
  out.dinitial_state = args.dinitial_state;
  out.dinitial_normalizer = args.dinitial_normalizer;
  out.has_prefix = plan.has_long_sequence() || args.initial_state != nullptr;
  out.has_suffix = plan.has_long_sequence() || args.dfinal_state != nullptr || args.dinitial_state != nullptr;
  out.rows = reinterpret_cast<float2*>(workspace + parts.rows);
  out.fold_weights = reinterpret_cast<float*>(workspace + parts.fold_weights);
  out.query_sums = reinterpret_cast<float*>(workspace + parts.query_sums);
  out.key_sums = reinterpret_cast<float2*>(workspace + parts.key_sums);
  out.suffix = reinterpret_cast<bf16*>(workspace + parts.suffix);
  out.suffix_z = reinterpret_cast<float*>(workspace + parts.suffix_z);
  out.border = reinterpret_cast<float*>(workspace + parts.border);
  out.border_parts = parts.border_parts;
  return out;
}

}  // namespace

absl::Status CheckRetentionBackwardShape(const CudaRetentionShape& shape) {
  if (shape.degree != 2) {
    return absl::UnimplementedError(
        absl::StrCat("power retention backward on the GPU: degree ", shape.degree, ": there is only degree 2"));
  }
  if (FindInstance(shape) == nullptr) {
    return absl::UnimplementedError(absl::StrCat("power retention backward on the GPU: head_dim ", shape.head_dim, ", ",
                                                 RetentionDtypeName(shape.dtype),
                                                 ": this build has bf16 with the head sizes of the forward pass"));
  }
  return absl::OkStatus();
}

absl::Status CudaRetentionBackward(const CudaRetentionPlan& plan, const CudaRetentionBackwardArgs& args,
                                   cudaStream_t stream) {
  if (absl::Status status = CheckRetentionBackwardShape(plan.shape()); !status.ok()) return status;
  if (absl::Status status = CheckStates(args); !status.ok()) return status;
  if (plan.num_rows() == 0) return PassStateThrough(plan, args, stream);
  if (absl::Status status = CheckPointers(args); !status.ok()) return status;
  const QueueFunction queue = FindInstance(plan.shape());
  const bool has_states =
      args.initial_state != nullptr || args.dfinal_state != nullptr || args.dinitial_state != nullptr;
  BackwardArgs<bf16> kernel_args = KernelArgs(plan, args, has_states);
  int device = 0, major = 0, minor = 0;
  if (absl::Status status = CudaStatus(cudaGetDevice(&device), "cudaGetDevice"); !status.ok()) return status;
  cudaError_t result = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (result == cudaSuccess) result = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (absl::Status status = CudaStatus(result, "cudaDeviceGetAttribute"); !status.ok()) return status;
  kernel_args.forward.has_wgmma =
      plan.shape().head_dim >= 64 && major == 9 && minor == 0 && args.path != RetentionPath::kMmaSync;
  return queue(kernel_args, stream);
}

}  // namespace statehouse::kernels
