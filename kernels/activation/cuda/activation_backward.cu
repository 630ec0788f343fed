#include "kernels/activation/cuda/activation_backward.h"

#include "kernels/activation/cuda/gelu.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/status.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;

// Grid-stride over the elements of dy.
template <typename T, bool kGated>
__global__ void __launch_bounds__(kThreads) ActivationGradient(CudaActivationBackwardArgs args) {
  const int64_t elements = args.num_rows * args.size;
  for (int64_t at = blockIdx.x * int64_t{kThreads} + threadIdx.x; at < elements; at += gridDim.x * int64_t{kThreads}) {
    const int64_t row = at / args.size, column = at % args.size;
    const int64_t in_x = kGated ? 2 * row * args.size + column : at;
    const float x = Get(static_cast<const T*>(args.x) + in_x), dy = Get(static_cast<const T*>(args.dy) + at);
    T* const dx = static_cast<T*>(args.dx) + in_x;
    if constexpr (kGated) {
      const float up = Get(static_cast<const T*>(args.x) + in_x + args.size), sigmoid = 1.0f / (1.0f + expf(-x));
      Put(dx, dy * up * sigmoid * (1.0f + x * (1.0f - sigmoid)));
      Put(dx + args.size, dy * x * sigmoid);
    } else {
      Put(dx, dy * GeluDerivative(args.bias == nullptr ? x : x + args.bias[column]));
    }
  }
}

template <bool kGated>
absl::Status Launch(const CudaActivationBackwardArgs& args, const char* name, cudaStream_t stream) {
  if (args.num_rows == 0 || args.size == 0) return absl::OkStatus();
  if (args.x == nullptr || args.dy == nullptr || args.dx == nullptr)
    return absl::InvalidArgumentError("activation backward: x, dy or dx is null");
  const int64_t blocks = (args.num_rows * args.size + kThreads - 1) / kThreads;
  const unsigned grid = static_cast<unsigned>(blocks < 65536 ? blocks : 65536);
  if (args.is_bf16) {
    ActivationGradient<__nv_bfloat16, kGated><<<grid, kThreads, 0, stream>>>(args);
  } else {
    ActivationGradient<float, kGated><<<grid, kThreads, 0, stream>>>(args);
  }
  return LaunchStatus(name);
}

}  // namespace

absl::Status CudaGeluTanhBackward(const CudaActivationBackwardArgs& args, cudaStream_t stream) {
  return Launch<false>(args, "GeluTanhBackward", stream);
}

absl::Status CudaSiluMulBackward(const CudaActivationBackwardArgs& args, cudaStream_t stream) {
  return Launch<true>(args, "SiluMulBackward", stream);
}

}  // namespace statehouse::kernels
