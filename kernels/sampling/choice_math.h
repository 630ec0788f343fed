// The arithmetic of choosing a token (docs/sampling.md): one source for the host and for a GPU, which must form the
// same bits. Whatever compiles this must not contract a product and a sum into one operation (-ffp-contract=off,
// --fmad=false), nor flush subnormals. A change here changes what a seed means. Thread-safety: pure functions.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace statehouse::kernels {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

// Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011): four random words that are a
// pure function of a counter and a key, so that every token's noise can be computed anywhere, in any order. Constants
// and rounds are those of Random123, whose known answers the test checks.
constexpr PhiloxCounter Philox4x32(PhiloxCounter counter, PhiloxKey key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9;
  constexpr uint32_t kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key = {key[0] + kWeyl0, key[1] + kWeyl1};
  }
  return counter;
}

// The random words of tokens 4 * quad … 4 * quad + 3 of one choice.
constexpr PhiloxCounter ChoiceWords(uint64_t seed, int32_t output, int64_t position, int32_t quad) {
  const uint64_t place = static_cast<uint64_t>(position);
  return Philox4x32({static_cast<uint32_t>(quad), static_cast<uint32_t>(place), static_cast<uint32_t>(place >> 32),
                     static_cast<uint32_t>(output)},
                    {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

// log(m · 2^exponent) for m in [0.5, 1). Relative error below 1e-15.
constexpr double LogOfParts(double m, int exponent) {
  constexpr double kLn2Hi = 0x1.62e42fefa38p-1;  // the low bits are zero: n·kLn2Hi is exact for |n| < 2^11
  constexpr double kLn2Lo = 0x1.ef35793c7673p-45;
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  // log m = 2 atanh(s) with s = (m-1)/(m+1), |s| <= 0.1716: s^23/23 is below 1e-18 of s.
  const double f = m - 1.0;
  const double s = f / (m + 1.0);
  const double s2 = s * s;
  double sum = 1.0 / 23;
  for (int odd = 21; odd >= 3; odd -= 2) sum = sum * s2 + 1.0 / odd;
  // 2s = f - s·f, which keeps the leading term exact.
  const double tail = s * (2 * s2 * sum - f);
  const double n = exponent;
  return n * kLn2Hi + (f + (tail + n * kLn2Lo));
}

// log(x) of a finite x that is at least the smallest normal number.
constexpr double LogOfNormal(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  const int exponent = static_cast<int>(bits >> 52) - 1022;
  return LogOfParts(std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFF) | 0x3FE0000000000000), exponent);
}

// A random word as Gumbel(0, 1) noise: u = (word + 1/2) / 2^32, -log(-log(u)). In (-3.14, 22.88).
constexpr double GumbelFromWord(uint32_t word) {
  const double u = (static_cast<double>(word) + 0.5) * 0x1p-32;
  return -LogOfNormal(-LogOfNormal(u));
}

// Above GumbelFromWord() of every word, so that a token this far below the best score cannot win.
inline constexpr double kMostNoise = 22.9;

// At least GumbelFromWord(word): -log(u) > 1 - u, and 1 - u >= 2^(bit width of ~word - 33).
constexpr double NoiseBound(uint32_t word) {
  constexpr double kAboveLog2 = 0.69315;
  return (33 - std::bit_width(~word)) * kAboveLog2;
}

// e^z for z <= 0 (relative error < 2e-7); 0 below -87, where float32 would become subnormal. Cephes' polynomial.
constexpr float Weight(float z) {
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

// Weight(z) in whole units of 2^-35, so that sums are exact and do not depend on their order. At most 2^35; sums of
// 2^18 tokens are exact in double, too.
constexpr uint64_t WeightUnits(float z) { return static_cast<uint64_t>(Weight(z) * 0x1p35f); }

// The units that a prefix must reach for a share p in (0, 1) of `sum` > 0. At least 1.
constexpr uint64_t UnitsToReach(double p, uint64_t sum) {
  const double wanted = p * static_cast<double>(sum);
  const uint64_t whole = static_cast<uint64_t>(wanted);
  return whole + (static_cast<double>(whole) < wanted ? 1 : 0);
}

}  // namespace statehouse::kernels
