#include <cuda_bf16.h>

#include "kernels/activation/cuda/activation.h"
#include "kernels/activation/cuda/gelu.cuh"
#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/mma.cuh"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;

// Four neighbours.
struct Four {
  float at[4];
};
__device__ __forceinline__ Four Get(const float* from) {
  const float4 x = *reinterpret_cast<const float4*>(from);
  return {{x.x, x.y, x.z, x.w}};
}
__device__ __forceinline__ Four Get(const __nv_bfloat16* from) {
  const uint2 bits = *reinterpret_cast<const uint2*>(from);
  return {{__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u), __uint_as_float(bits.y << 16),
           __uint_as_float(bits.y & 0xffff0000u)}};
}
__device__ __forceinline__ void Put(float* to, const Four& x) {
  *reinterpret_cast<float4*>(to) = make_float4(x.at[0], x.at[1], x.at[2], x.at[3]);
}
__device__ __forceinline__ void Put(__nv_bfloat16* to, const Four& x) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(x.at[0], x.at[1]), high = __floats2bfloat162_rn(x.at[2], x.at[3]);
  *reinterpret_cast<uint2*>(to) =
      make_uint2(*reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high));
}

// Grid-stride over fours.
template <typename T, bool kGated>
__global__ void __launch_bounds__(kThreads) Activate(CudaActivationArgs args) {
  LetDependentsStart();
  WaitForResults();
  const int64_t fours = args.num_rows * args.size / 4, per_row = args.size / 4;
  for (int64_t at = blockIdx.x * int64_t{kThreads} + threadIdx.x; at < fours; at += gridDim.x * int64_t{kThreads}) {
    const int64_t row = at / per_row, column = at % per_row * 4;
    const T* const x = static_cast<const T*>(args.x) + row * args.size * (kGated ? 2 : 1) + column;
    Four value = Get(x);
    if constexpr (kGated) {
      const Four up = Get(x + args.size);
#pragma unroll
      for (int i = 0; i < 4; ++i) value.at[i] = value.at[i] / (1.0f + expf(-value.at[i])) * up.at[i];
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        value.at[i] = Gelu(args.bias == nullptr ? value.at[i] : value.at[i] + args.bias[column + i]);
      }
    }
    Put(static_cast<T*>(args.y) + row * args.size + column, value);
  }
}

template <bool kGated>
absl::Status Launch(const CudaActivationArgs& args, const char* name, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  if (args.size % 4 != 0) return absl::InvalidArgumentError("activation on the GPU: size must be a multiple of 4");
  const int64_t blocks = (args.num_rows * args.size / 4 + kThreads - 1) / kThreads;
  const unsigned grid = static_cast<unsigned>(blocks < 65536 ? blocks : 65536);
  if (args.is_bf16) return LaunchEarly(name, Activate<__nv_bfloat16, kGated>, grid, kThreads, 0, stream, args);
  return LaunchEarly(name, Activate<float, kGated>, grid, kThreads, 0, stream, args);
}

}  // namespace

absl::Status CudaGeluTanh(const CudaActivationArgs& args, cudaStream_t stream) {
  return Launch<false>(args, "GeluTanh", stream);
}

absl::Status CudaSiluMul(const CudaActivationArgs& args, cudaStream_t stream) {
  return Launch<true>(args, "SiluMul", stream);
}

}  // namespace statehouse::kernels
