#include "kernels/power_retention/cuda/decode_launch.cuh"

namespace statehouse::kernels {

template absl::Status QueueDecode<half, float, 64>(const DecodeArgs&, int, cudaStream_t);
template absl::Status QueueDecode<half, bf16, 64>(const DecodeArgs&, int, cudaStream_t);
template absl::Status QueueDecode<half, int8_t, 64>(const DecodeArgs&, int, cudaStream_t);

}  // namespace statehouse::kernels
