#include "kernels/power_retention/cuda/forward.cuh"

namespace statehouse::kernels {

template absl::Status QueueForward<bf16, 64>(const RetentionArgs<bf16>&, bool, cudaStream_t);

}  // namespace statehouse::kernels
