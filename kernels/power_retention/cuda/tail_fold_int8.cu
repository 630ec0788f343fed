#include "kernels/power_retention/cuda/tail_fold.cuh"

namespace statehouse::kernels {

template absl::Status QueueTailFold<bf16, int8_t>(const TailFoldArgs&, int, int, int, cudaStream_t);
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
template absl::Status QueueTailFold<half, int8_t>(const TailFoldArgs&, int, int, int, cudaStream_t);
template absl::Status QueueTailFold<float, int8_t>(const TailFoldArgs&, int, int, int, cudaStream_t);
#endif

}  // namespace statehouse::kernels
