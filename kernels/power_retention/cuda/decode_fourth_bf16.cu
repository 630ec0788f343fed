#include "kernels/power_retention/cuda/decode_fourth.cuh"

namespace statehouse::kernels {

template absl::Status QueueDecodeFourth<bf16, 16>(const DecodeArgs&, int, cudaStream_t);
template absl::Status QueueDecodeFourth<bf16, 32>(const DecodeArgs&, int, cudaStream_t);
template absl::Status QueueFoldTailFourth<bf16, 16>(const TailFoldArgs&, int, int, cudaStream_t);
template absl::Status QueueFoldTailFourth<bf16, 32>(const TailFoldArgs&, int, int, cudaStream_t);

}  // namespace statehouse::kernels
