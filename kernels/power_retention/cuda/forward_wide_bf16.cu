#include "kernels/power_retention/cuda/forward_wide.cuh"

namespace statehouse::kernels {

template absl::Status QueueForwardWide<bf16>(const RetentionArgs<bf16>&, int, bool, cudaStream_t);
template absl::Status QueueStatesWide<bf16>(const RetentionArgs<bf16>&, int, cudaStream_t);

}  // namespace statehouse::kernels
