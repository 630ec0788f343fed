// e^z of candidates and logits, in float: what probabilities are sums and quotients of. Inline because a choice may
// need one per token of the vocabulary; kernels/math has the double forms. Its bits do not depend on the host's libm,
// and a change here changes what a seed means (docs/sampling.md).
#pragma once

#include <bit>
#include <cstdint>

namespace statehouse {

// e^z for z <= 0 (relative error < 2e-7); 0 below -87, where float32 would become subnormal. Cephes' polynomial.
inline float Weight(float z) {
  if (!(z >= -87.0f)) return 0.0f;                // also NaN
  constexpr float kRoundToInteger = 12582912.0f;  // 1.5 * 2^23
  const float k = (z * 1.44269504f + kRoundToInteger) - kRoundToInteger;
  const float r = (z - k * 0.693359375f) - k * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float y = (p * (r * r) + r) + 1.0f;
  return y * std::bit_cast<float>((static_cast<int32_t>(k) + 127) << 23);
}

}  // namespace statehouse
