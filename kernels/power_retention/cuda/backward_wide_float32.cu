#include "kernels/power_retention/cuda/backward_wide.cuh"

namespace statehouse::kernels {

template absl::Status QueueBackwardWide<float>(const BackwardArgs<float>&, int, cudaStream_t);

}  // namespace statehouse::kernels
