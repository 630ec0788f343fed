#include <cuda_bf16.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"
#include "kernels/norm/cuda/norm.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostElements = 16384;  // a row is kept in shared memory, 64 KB: see CudaNorm()

// Sum over the block, the same in every thread; the order depends on the block's shape alone.
__device__ __forceinline__ float BlockSum(float value, float* shared) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();  // warps' sums are there
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += shared[warp];
  __syncthreads();  // `shared` may be used again
  return sum;
}

__device__ __forceinline__ void Put(float* to, float value) { *to = value; }
__device__ __forceinline__ void Put(__nv_bfloat16* to, float value) { *to = __float2bfloat16_rn(value); }

// Grid (row).
template <typename T>
__global__ void __launch_bounds__(kThreads) Normalise(CudaNormArgs args) {
  extern __shared__ float row[];  // [size]
  __shared__ float sums[kThreads / 32];
  const int64_t at = args.rows != nullptr ? args.rows[blockIdx.x] : blockIdx.x;
  const int size = static_cast<int>(args.size);
  float* const x = args.x + at * args.size;
  float sum = 0;
  for (int i = threadIdx.x; i < size; i += kThreads) {
    float value = x[i];
    if (args.x_bias != nullptr) {
      value += args.x_bias[i];
      if (args.rows == nullptr) x[i] = value;
    }
    row[i] = value;
    sum += args.is_rms ? value * value : value;
  }
  sum = BlockSum(sum, sums);
  const float inverse_size = 1.0f / static_cast<float>(size);
  float mean = 0, variance = sum * inverse_size;
  if (!args.is_rms) {
    mean = sum * inverse_size;
    float squares = 0;
    for (int i = threadIdx.x; i < size; i += kThreads) {
      const float off = row[i] - mean;
      squares += off * off;
    }
    variance = BlockSum(squares, sums) * inverse_size;
  }
  const float scale = 1.0f / sqrtf(variance + args.epsilon);
  T* const y = static_cast<T*>(args.y) + blockIdx.x * args.size;
  for (int i = threadIdx.x; i < size; i += kThreads) {
    float value = (row[i] - mean) * scale * args.weight[i];
    if (args.bias != nullptr) value += args.bias[i];
    Put(y + i, value);
  }
}

template <typename T>
absl::Status Launch(const CudaNormArgs& args, cudaStream_t stream) {
  const size_t shared = args.size * sizeof(float);
  if (shared > 47 * 1024) {
    const absl::Status status = CudaStatus(
        cudaFuncSetAttribute(Normalise<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
        "cudaFuncSetAttribute(Normalise)");
    if (!status.ok()) return status;
  }
  Normalise<T><<<static_cast<unsigned>(args.num_rows), kThreads, shared, stream>>>(args);
  return LaunchStatus("Normalise");
}

}  // namespace

absl::Status CudaNorm(const CudaNormArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  if (args.size < 1 || args.size > kMostElements) {
    return absl::UnimplementedError(absl::StrCat("norm on the GPU: rows of ", args.size, "; at most ", kMostElements));
  }
  return args.y_is_bf16 ? Launch<__nv_bfloat16>(args, stream) : Launch<float>(args, stream);
}

}  // namespace statehouse::kernels
