// What kernels that prepare heads share.
#pragma once

namespace statehouse::kernels {

// log(sigmoid(x)), stable on both sides.
__device__ __forceinline__ float LogSigmoid(float x) { return fminf(x, 0.0f) - log1pf(expf(-fabsf(x))); }

}  // namespace statehouse::kernels
