#include "kernels/power_retention/cuda/backward.cuh"

namespace statehouse::kernels {

template absl::Status QueueBackward<bf16, 128>(const BackwardArgs<bf16>&, cudaStream_t);

}  // namespace statehouse::kernels
