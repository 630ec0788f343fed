// The expansion φ, formed a block of monomials at a time, with lanes across rows (queries or keys). `x` is transposed.

#if defined(STATEHOUSE_KERNELS_POWER_RETENTION_EXPAND_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STATEHOUSE_KERNELS_POWER_RETENTION_EXPAND_INL_H_
#undef STATEHOUSE_KERNELS_POWER_RETENTION_EXPAND_INL_H_
#else
#define STATEHOUSE_KERNELS_POWER_RETENTION_EXPAND_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/math/simd-inl.h"
#include "kernels/power_retention/monomial.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {

// The product of all factors but the last, [groups · 16]. For degree 2 that is a row of x itself.
HWY_INLINE const float* Prefix(const Monomial& monomial, const float* x, int64_t x_stride, int groups, float* buffer) {
  const float* first = x + monomial.index[0] * x_stride;
  if (monomial.degree == 2) return first;
  const float* second = x + monomial.index[1] * x_stride;
  const float* third = x + monomial.index[2] * x_stride;
  for (int lane = 0; lane < groups * kGroup; lane += kGroup) {
    Store16(Mul16(Mul16(Load16(first + lane), Load16(second + lane)), Load16(third + lane)), buffer + lane);
  }
  return buffer;
}

// Writes `count` monomials from `monomial` on (which advances), one row of `out` each; x [d][x_stride], out
// [count][out_stride], groups·16 lanes of each. kKeySide: times the multiplicity, so that ExpandQuery(q)·ExpandKey(k) =
// (q·k)^p.
template <bool kKeySide>
HWY_INLINE void Expand(Monomial& monomial, int64_t count, const float* x, int64_t x_stride, int groups,
                       float* prefix_buffer, float* out, int64_t out_stride) {
  int64_t done = 0;
  while (done < count) {
    const float* prefix = Prefix(monomial, x, x_stride, groups, prefix_buffer);
    const int64_t run = HWY_MIN(count - done, int64_t{monomial.RunLength()});
    float multiplicity[kMaxHeadDim];
    if constexpr (kKeySide) {
      for (int64_t i = 0; i < run; ++i) multiplicity[i] = monomial.MultiplicityAt(i);
    }
    for (int lane = 0; lane < groups * kGroup; lane += kGroup) {
      const F16 leading = Load16(prefix + lane);
      const float* last = x + monomial.index[monomial.degree - 1] * x_stride + lane;
      float* to = out + done * out_stride + lane;
      for (int64_t i = 0; i < run; ++i) {
        F16 product = Mul16(leading, Load16(last + i * x_stride));
        if constexpr (kKeySide) product = Mul16(product, Set16(multiplicity[i]));
        Store16(product, to + i * out_stride);
      }
    }
    monomial.Advance(run);
    done += run;
  }
}

HWY_INLINE void ExpandQuery(Monomial& monomial, int64_t count, const float* x, int64_t x_stride, int groups,
                            float* prefix_buffer, float* out, int64_t out_stride) {
  Expand<false>(monomial, count, x, x_stride, groups, prefix_buffer, out, out_stride);
}

HWY_INLINE void ExpandKey(Monomial& monomial, int64_t count, const float* x, int64_t x_stride, int groups,
                          float* prefix_buffer, float* out, int64_t out_stride) {
  Expand<true>(monomial, count, x, x_stride, groups, prefix_buffer, out, out_stride);
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard
