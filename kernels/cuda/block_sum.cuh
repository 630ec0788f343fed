// Reductions over one block, in an order that depends on its shape alone: the same in every thread.
#pragma once

#include <cuda_runtime.h>

namespace statehouse::kernels {

// `shared`: a float per warp. All kThreads threads call it.
template <int kThreads, typename Combine>
__device__ __forceinline__ float BlockReduce(float value, float* shared, const Combine& combine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(0xffffffffu, value, step));
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();  // warps' results are there
  float all = shared[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / 32; ++warp) all = combine(all, shared[warp]);
  __syncthreads();  // `shared` may be used again
  return all;
}
template <int kThreads>
__device__ __forceinline__ float BlockSum(float value, float* shared) {
  return BlockReduce<kThreads>(value, shared, [](float a, float b) { return a + b; });
}
template <int kThreads>
__device__ __forceinline__ float BlockMax(float value, float* shared) {
  return BlockReduce<kThreads>(value, shared, [](float a, float b) { return fmaxf(a, b); });
}

}  // namespace statehouse::kernels
