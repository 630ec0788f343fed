#include "kernels/power_retention/cuda/forward_wide.cuh"

namespace statehouse::kernels {

template absl::Status QueueForwardWide<half>(const RetentionArgs<half>&, int, bool, cudaStream_t);

}  // namespace statehouse::kernels
