// Elements of any type brought to float32, eight at a time.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"

namespace statehouse::kernels {

// Neighbours that are read and written in one access.
template <typename X, int kCount>
struct alignas(sizeof(X) * kCount) Neighbours {
  X x[kCount];
};

// 8 neighbours as float32. REQUIRES: `from` is 16-byte aligned.
template <typename T>
__device__ __forceinline__ void LoadEight(float (&to)[8], const T* from) {
  if constexpr (sizeof(T) == 2) {
    const uint4 loaded = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
#pragma unroll
    for (int w = 0; w < 4; ++w) to[2 * w] = Pair<T>::Low(words[w]), to[2 * w + 1] = Pair<T>::High(words[w]);
  } else {
    const float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
    to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
    to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
  }
}

// 8 neighbours into shared memory in float32; zeros where `from` is null.
template <typename T>
__device__ __forceinline__ void WidenUnit(float* to, const T* from) {
  float x[8] = {};
  if (from != nullptr) LoadEight(x, from);
  reinterpret_cast<float4*>(to)[0] = {x[0], x[1], x[2], x[3]};
  reinterpret_cast<float4*>(to)[1] = {x[4], x[5], x[6], x[7]};
}

}  // namespace statehouse::kernels
