#include "kernels/power_retention/cuda/backward_wide.cuh"

namespace statehouse::kernels {

template absl::Status QueueBackwardWide<bf16>(const BackwardArgs<bf16>&, int, cudaStream_t);

}  // namespace statehouse::kernels
