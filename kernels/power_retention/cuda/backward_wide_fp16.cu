#include "kernels/power_retention/cuda/backward_wide.cuh"

namespace statehouse::kernels {

template absl::Status QueueBackwardWide<half>(const BackwardArgs<half>&, int, cudaStream_t);

}  // namespace statehouse::kernels
