// Elements of a checkpoint's tensors as float32, exactly, and rounded to what a model holds. Thread-safety: pure
// functions.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/matmul/matmul.h"

namespace statehouse {

inline float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: exact as a multiple of 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t widened = exponent == 0x1fu ? 0xffu : exponent + 112;
  return std::bit_cast<float>(sign | (widened << 23) | (mantissa << 13));
}

// Element `idx` of a tensor's bytes, which need not be aligned.
inline float ElementAt(const void* tensor, kernels::SourceType type, int64_t idx) {
  using kernels::SourceType;
  const auto* const data = static_cast<const std::byte*>(tensor);
  if (type == SourceType::kF32) {
    float value;
    std::memcpy(&value, data + idx * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, data + idx * 2, 2);
  return type == SourceType::kF16 ? HalfToFloat(bits) : std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Rounded to nearest, ties to even. REQUIRES: not NaN. Beyond the largest bf16 the result is infinite.
inline uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Elements [first, first + count) of a tensor as bf16 or float32. False if one is NaN or infinite, as stored or once
// rounded.
inline bool CopyElements(const void* tensor, kernels::SourceType type, int64_t first, int64_t count, bool to_bf16,
                         void* out) {
  bool all_finite = true;
  for (int64_t i = 0; i < count; ++i) {
    const float value = ElementAt(tensor, type, first + i);
    all_finite = all_finite && std::isfinite(value);
    if (to_bf16) {
      const uint16_t rounded = FloatToBf16(value);
      all_finite = all_finite && (rounded & 0x7f80u) != 0x7f80u;
      static_cast<uint16_t*>(out)[i] = rounded;
    } else {
      static_cast<float*>(out)[i] = value;
    }
  }
  return all_finite;
}

}  // namespace statehouse
