// One element of float32 or bf16 as a float, and back.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace statehouse::kernels {

__device__ __forceinline__ float Get(const float* from) { return *from; }
__device__ __forceinline__ float Get(const __nv_bfloat16* from) { return __bfloat162float(*from); }
__device__ __forceinline__ void Put(float* to, float value) { *to = value; }
__device__ __forceinline__ void Put(__nv_bfloat16* to, float value) { *to = __float2bfloat16_rn(value); }

}  // namespace statehouse::kernels
