// Vectors of at most 16 floats, and groups of exactly 16, for files that Highway compiles once per instruction set.
// Included only by .cc files that define HWY_TARGET_INCLUDE. A group of 16 has the same arithmetic on every machine:
// one AVX-512 vector, two of AVX2, four of NEON.

#if defined(STATEHOUSE_KERNELS_MATH_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STATEHOUSE_KERNELS_MATH_SIMD_INL_H_
#undef STATEHOUSE_KERNELS_MATH_SIMD_INL_H_
#else
#define STATEHOUSE_KERNELS_MATH_SIMD_INL_H_
#endif

#include <cstdint>
#include <cstring>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
using DI = hn::RebindToSigned<DF>;
using DU = hn::RebindToUnsigned<DF>;
using VF = hn::Vec<DF>;
inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(DF()));
inline constexpr int kGroup = 16;  // lanes of a group
inline constexpr int kGroupVectors = kGroup / kLanes;

struct F16 {
  VF v[kGroupVectors];
};

HWY_INLINE F16 Zero16() {
  F16 out;
  HWY_UNROLL(4)
  for (int i = 0; i < kGroupVectors; ++i) out.v[i] = hn::Zero(DF());
  return out;
}

HWY_INLINE F16 Set16(float value) {
  F16 out;
  HWY_UNROLL(4)
  for (int i = 0; i < kGroupVectors; ++i) out.v[i] = hn::Set(DF(), value);
  return out;
}

HWY_INLINE F16 Load16(const float* from) {
  F16 out;
  HWY_UNROLL(4)
  for (int i = 0; i < kGroupVectors; ++i) out.v[i] = hn::LoadU(DF(), from + i * kLanes);
  return out;
}

// The first `count` of 16 floats; the other lanes are zero and their memory is not touched.
HWY_INLINE F16 LoadFirst16(const float* from, int64_t count) {
  if (count >= kGroup) return Load16(from);
  alignas(64) float padded[kGroup] = {};
  std::memcpy(padded, from, count * sizeof(float));
  return Load16(padded);
}

HWY_INLINE void Store16(const F16& x, float* to) {
  HWY_UNROLL(4)
  for (int i = 0; i < kGroupVectors; ++i) hn::StoreU(x.v[i], DF(), to + i * kLanes);
}

HWY_INLINE void StoreFirst16(const F16& x, int64_t count, float* to) {
  if (count >= kGroup) return Store16(x, to);
  alignas(64) float padded[kGroup];
  Store16(x, padded);
  std::memcpy(to, padded, count * sizeof(float));
}

HWY_INLINE F16 Add16(const F16& a, const F16& b) {
  F16 out;
  HWY_UNROLL(4)
  for (int i = 0; i < kGroupVectors; ++i) out.v[i] = hn::Add(a.v[i], b.v[i]);
  return out;
}

HWY_INLINE F16 Sub16(const F16& a, const F16& b) {
  F16 out;
  HWY_UNROLL(4)
  for (int i = 0; i < kGroupVectors; ++i) out.v[i] = hn::Sub(a.v[i], b.v[i]);
  return out;
}

HWY_INLINE F16 Mul16(const F16& a, const F16& b) {
  F16 out;
  HWY_UNROLL(4)
  for (int i = 0; i < kGroupVectors; ++i) out.v[i] = hn::Mul(a.v[i], b.v[i]);
  return out;
}

// a · b + c
HWY_INLINE F16 MulAdd16(const F16& a, const F16& b, const F16& c) {
  F16 out;
  HWY_UNROLL(4)
  for (int i = 0; i < kGroupVectors; ++i) out.v[i] = hn::MulAdd(a.v[i], b.v[i], c.v[i]);
  return out;
}

// Applies a function of one vector to each vector of the group.
template <class Fn>
HWY_INLINE F16 Map16(const F16& a, const Fn& fn) {
  F16 out;
  HWY_UNROLL(4)
  for (int i = 0; i < kGroupVectors; ++i) out.v[i] = fn(a.v[i]);
  return out;
}

// The sum of the 16 lanes in one fixed tree: l + (l+8), then + 4, + 2, + 1.
HWY_INLINE float TreeSum16(const F16& x) {
  alignas(64) float lane[kGroup];
  Store16(x, lane);
  for (int half = kGroup / 2; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard
