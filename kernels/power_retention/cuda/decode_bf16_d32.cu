#include "kernels/power_retention/cuda/decode_launch.cuh"

namespace statehouse::kernels {

template absl::Status QueueDecode<bf16, float, 32>(const DecodeArgs&, int, cudaStream_t);
template absl::Status QueueDecode<bf16, bf16, 32>(const DecodeArgs&, int, cudaStream_t);
template absl::Status QueueDecode<bf16, int8_t, 32>(const DecodeArgs&, int, cudaStream_t);

}  // namespace statehouse::kernels
