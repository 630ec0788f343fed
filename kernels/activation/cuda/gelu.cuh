// GELU in its tanh form, and its derivative.
#pragma once

namespace statehouse::kernels {

inline constexpr float kGeluRoot = 0.7978845608028654f;  // sqrt(2 / pi)
inline constexpr float kGeluCubic = 0.044715f;

__device__ __forceinline__ float Gelu(float x) {
  return 0.5f * x * (1.0f + tanhf(kGeluRoot * (x + kGeluCubic * x * x * x)));
}

__device__ __forceinline__ float GeluDerivative(float x) {
  const float tanh = tanhf(kGeluRoot * (x + kGeluCubic * x * x * x));
  return 0.5f * (1.0f + tanh) + 0.5f * x * (1.0f - tanh * tanh) * kGeluRoot * (1.0f + 3 * kGeluCubic * x * x);
}

}  // namespace statehouse::kernels
