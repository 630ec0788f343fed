#include "kernels/power_retention/cuda/forward_wide.cuh"

namespace statehouse::kernels {

template absl::Status QueueForwardWide<float>(const RetentionArgs<float>&, int, bool, cudaStream_t);
template absl::Status QueueStatesWide<float>(const RetentionArgs<float>&, int, cudaStream_t);

}  // namespace statehouse::kernels
