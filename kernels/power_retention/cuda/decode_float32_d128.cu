#include "kernels/power_retention/cuda/decode_launch.cuh"

namespace statehouse::kernels {

template absl::Status QueueDecode<float, float, 128>(const DecodeArgs&, int, cudaStream_t);
template absl::Status QueueDecode<float, bf16, 128>(const DecodeArgs&, int, cudaStream_t);
template absl::Status QueueDecode<float, int8_t, 128>(const DecodeArgs&, int, cudaStream_t);

}  // namespace statehouse::kernels
