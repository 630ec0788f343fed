#include "kernels/power_retention/cuda/forward_wide.cuh"

namespace statehouse::kernels {

template absl::Status QueueForwardWide<half>(const RetentionArgs<half>&, int, bool, cudaStream_t);
template absl::Status QueueStatesWide<half>(const RetentionArgs<half>&, int, cudaStream_t);

}  // namespace statehouse::kernels
