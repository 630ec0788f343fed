// How slots keep a state below float32 (decode.h): the number that decoding reads, and 8 bits beside it of what that
// leaves, which folds add again.
//
//   bf16: a float32 without its last 8 bits is the nearest bf16 and a rest in units of 2^-8 of its last place
//   int8: 8 neighbouring rows (i, 0 … 7) of a tile share a scale, and an element is scale (nearest + rest / 256)
//
// The scale is a bf16 number so that scale times 16 bits is a float32: what is exported is imported with the same bits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace statehouse::kernels {

struct BfloatAndRest {
  uint16_t nearest;
  int8_t rest;
};
__device__ __forceinline__ float Join(uint16_t nearest, int8_t rest) {
  return __uint_as_float((static_cast<uint32_t>(nearest) << 16) + (static_cast<int32_t>(rest) << 8));
}
// Rounds the last 8 bits up or down, so that the mean is x; `random`: 8 bits. Infinities and NaN stay.
__device__ __forceinline__ BfloatAndRest Split(float x, uint32_t random) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return {static_cast<uint16_t>(bits >> 16), 0};
  const uint32_t kept = (bits + random) & 0xffffff00u, nearest = (kept + 0x8000u) >> 16;
  return {static_cast<uint16_t>(nearest), static_cast<int8_t>(static_cast<int32_t>(kept - (nearest << 16)) >> 8)};
}

// Rounding to nearest, for Split() and SplitScaled().
inline constexpr uint32_t kNearest = 128;

inline constexpr int kScaleRows = 8;
inline constexpr float kMostNearest = 127.0f;

// The scale of 8 rows whose largest magnitude is `most`: the least bf16 number that reaches it with 127. 0 where all
// are next to nothing, NaN where one is infinite or no number.
__device__ __forceinline__ float ScaleFor(float most) {
  if (!(__float_as_uint(most) < 0x7f800000u)) return __uint_as_float(0x7fc00000u);
  if (most < 0x1p-100f) return 0;
  return __uint_as_float((__float_as_uint(most / kMostNearest) + 0xffffu) & 0xffff0000u);
}

struct ByteAndRest {
  int8_t nearest, rest;
};
__device__ __forceinline__ float JoinScaled(int8_t nearest, int8_t rest, float scale) {
  return scale * (static_cast<float>(static_cast<int>(nearest) * 256 + rest) * 0x1p-8f);
}
// As Split(); `steps` is 256 / scale, 0 for a scale of 0. `is_most`: x is the largest of its scale; it stays large
// enough for ScaleFor() to give that scale again.
__device__ __forceinline__ ByteAndRest SplitScaled(float x, float scale, float steps, uint32_t random, bool is_most) {
  constexpr int kMost = 127 * 256;
  int whole = static_cast<int>(floorf(fmaf(x, steps, (static_cast<float>(random) + 0.5f) * 0x1p-8f)));
  whole = min(kMost, max(-kMost, whole));
  if (is_most && ScaleFor(scale * (static_cast<float>(abs(whole)) * 0x1p-8f)) != scale) whole += whole > 0 ? 1 : -1;
  const int nearest = (whole + 128) >> 8;
  return {static_cast<int8_t>(nearest), static_cast<int8_t>(whole - nearest * 256)};
}
__device__ __forceinline__ float StepsOf(float scale) { return scale == 0 ? 0.0f : 256.0f / scale; }

}  // namespace statehouse::kernels
