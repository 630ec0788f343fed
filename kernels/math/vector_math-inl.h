// exp and log1p over float vectors: our own, because libm's differ from host to host. The same operations in the same
// order on every instruction set that has fused multiply-add, hence the same bits.

#if defined(STATEHOUSE_KERNELS_MATH_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STATEHOUSE_KERNELS_MATH_VECTOR_MATH_INL_H_
#undef STATEHOUSE_KERNELS_MATH_VECTOR_MATH_INL_H_
#else
#define STATEHOUSE_KERNELS_MATH_VECTOR_MATH_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/math/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {

// e^x to 2 units in the last place. 0 where e^x is below the smallest normal float (x < -87.33), infinity above 88.72.
HWY_INLINE VF Exp(VF x) {
  const DF df;
  const DI di;
  const VF lowest = hn::Set(df, -87.33654f);
  const VF clamped = hn::Min(hn::Max(x, lowest), hn::Set(df, 89.0f));
  // x = n ln 2 + r, |r| <= ln 2 / 2; ln 2 in two parts (Cody and Waite).
  const VF n = hn::Round(hn::Mul(clamped, hn::Set(df, 1.442695041f)));
  VF r = hn::NegMulAdd(n, hn::Set(df, 0.693145752f), clamped);
  r = hn::NegMulAdd(n, hn::Set(df, 1.42860677e-6f), r);
  // Taylor up to r^7 / 7!: the remainder is below 6e-9.
  VF sum = hn::Set(df, 1.0f / 5040);
  sum = hn::MulAdd(sum, r, hn::Set(df, 1.0f / 720));
  sum = hn::MulAdd(sum, r, hn::Set(df, 1.0f / 120));
  sum = hn::MulAdd(sum, r, hn::Set(df, 1.0f / 24));
  sum = hn::MulAdd(sum, r, hn::Set(df, 1.0f / 6));
  sum = hn::MulAdd(sum, r, hn::Set(df, 0.5f));
  sum = hn::MulAdd(sum, r, hn::Set(df, 1.0f));
  sum = hn::MulAdd(sum, r, hn::Set(df, 1.0f));
  // 2^n in two factors, because n may be 128.
  const auto ni = hn::ConvertTo(di, n);
  const auto half = hn::ShiftRight<1>(ni);
  const auto rest = hn::Sub(ni, half);
  const auto bias = hn::Set(di, 127);
  const VF scale0 = hn::BitCast(df, hn::ShiftLeft<23>(hn::Add(half, bias)));
  const VF scale1 = hn::BitCast(df, hn::ShiftLeft<23>(hn::Add(rest, bias)));
  return hn::IfThenElseZero(hn::Ge(x, lowest), hn::Mul(hn::Mul(sum, scale0), scale1));
}

// log(1 + u) for u in [0, 1], to 2 units in the last place (small u too): 2 atanh(s), s = u / (2 + u) <= 1/3.
HWY_INLINE VF Log1pUnit(VF u) {
  const DF df;
  const VF s = hn::Div(u, hn::Add(u, hn::Set(df, 2.0f)));
  const VF s2 = hn::Mul(s, s);
  // s^2 <= 1/9: the term after s^16/17 adds less than 4e-9 of the sum.
  VF sum = hn::Set(df, 1.0f / 17);
  sum = hn::MulAdd(sum, s2, hn::Set(df, 1.0f / 15));
  sum = hn::MulAdd(sum, s2, hn::Set(df, 1.0f / 13));
  sum = hn::MulAdd(sum, s2, hn::Set(df, 1.0f / 11));
  sum = hn::MulAdd(sum, s2, hn::Set(df, 1.0f / 9));
  sum = hn::MulAdd(sum, s2, hn::Set(df, 1.0f / 7));
  sum = hn::MulAdd(sum, s2, hn::Set(df, 1.0f / 5));
  sum = hn::MulAdd(sum, s2, hn::Set(df, 1.0f / 3));
  const VF twice = hn::Add(s, s);
  return hn::MulAdd(hn::Mul(twice, s2), sum, twice);
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard
