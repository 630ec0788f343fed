#include "kernels/power_retention/cuda/forward.cuh"

namespace statehouse::kernels {

template absl::Status QueueForward<bf16, 32>(const RetentionArgs<bf16>&, bool, cudaStream_t);
template absl::Status QueueGates<bf16, 32>(const RetentionArgs<bf16>&, cudaStream_t);
template absl::Status QueueFold<bf16, 32>(const RetentionArgs<bf16>&, cudaStream_t);
template absl::Status QueueStates<bf16, 32>(const RetentionArgs<bf16>&, cudaStream_t);

}  // namespace statehouse::kernels
