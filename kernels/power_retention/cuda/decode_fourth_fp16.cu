#include "kernels/power_retention/cuda/decode_fourth.cuh"

namespace statehouse::kernels {

template absl::Status QueueDecodeFourth<half, 16>(const DecodeArgs&, int, cudaStream_t);
template absl::Status QueueDecodeFourth<half, 32>(const DecodeArgs&, int, cudaStream_t);
template absl::Status QueueFoldTailFourth<half, 16>(const TailFoldArgs&, int, int, cudaStream_t);
template absl::Status QueueFoldTailFourth<half, 32>(const TailFoldArgs&, int, int, cudaStream_t);

}  // namespace statehouse::kernels
