#include "kernels/power_retention/cuda/decode_launch.cuh"

namespace statehouse::kernels {

template absl::Status QueueDecode<half, float, 128>(const DecodeArgs&, int, cudaStream_t);
template absl::Status QueueDecode<half, bf16, 128>(const DecodeArgs&, int, cudaStream_t);
template absl::Status QueueDecode<half, int8_t, 128>(const DecodeArgs&, int, cudaStream_t);

}  // namespace statehouse::kernels
