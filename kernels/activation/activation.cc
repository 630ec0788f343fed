#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/activation/activation.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/math/simd-inl.h"
#include "kernels/math/vector_math-inl.h"

#include <algorithm>

#include "kernels/activation/activation.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {

struct GeluTanhOp {
  // 0.5 x (1 + tanh u) = x / (1 + e^(-2u)), u = sqrt(2/pi) (x + 0.044715 x³)
  HWY_INLINE VF operator()(VF x) const {
    const DF df;
    const VF x2 = hn::Mul(x, x);
    const VF inner = hn::MulAdd(hn::Mul(x2, x), hn::Set(df, 0.044715f), x);
    const VF e = Exp(hn::Mul(inner, hn::Set(df, -1.5957691216f)));  // -2 sqrt(2/pi)
    return hn::Div(x, hn::Add(hn::Set(df, 1.0f), e));
  }
};

struct SiluOp {
  HWY_INLINE VF operator()(VF x) const { return hn::Div(x, hn::Add(hn::Set(DF(), 1.0f), Exp(hn::Neg(x)))); }
};

struct LogSigmoidOp {
  // min(x, 0) - log(1 + e^-|x|): e^-|x| never overflows, and both terms are <= 0.
  HWY_INLINE VF operator()(VF x) const {
    const DF df;
    return hn::Sub(hn::Min(x, hn::Zero(df)), Log1pUnit(Exp(hn::Neg(hn::Abs(x)))));
  }
};

template <class Op>
HWY_INLINE void ApplyInPlace(float* x, int64_t size, const Op& op) {
  for (int64_t i = 0; i < size; i += kGroup) {
    const int64_t count = HWY_MIN(size - i, int64_t{kGroup});
    StoreFirst16(Map16(LoadFirst16(x + i, count), op), count, x + i);
  }
}

void GeluTanhRange(float* x, int64_t size) { ApplyInPlace(x, size, GeluTanhOp()); }
void LogSigmoidRange(float* x, int64_t size) { ApplyInPlace(x, size, LogSigmoidOp()); }
void SiluMulRange(float* gate, const float* up, int64_t size) {
  for (int64_t i = 0; i < size; i += kGroup) {
    const int64_t count = HWY_MIN(size - i, int64_t{kGroup});
    const F16 silu = Map16(LoadFirst16(gate + i, count), SiluOp());
    StoreFirst16(Mul16(silu, LoadFirst16(up + i, count)), count, gate + i);
  }
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace statehouse::kernels {
HWY_EXPORT(GeluTanhRange);
HWY_EXPORT(SiluMulRange);
HWY_EXPORT(LogSigmoidRange);

namespace {
// Elements per task: a few microseconds of work.
constexpr int64_t kBlock = 16384;
int64_t NumBlocks(int64_t size) { return (size + kBlock - 1) / kBlock; }
}  // namespace

void GeluTanh(float* x, int64_t size, ThreadPool& pool) {
  const auto range = &HWY_DYNAMIC_DISPATCH(GeluTanhRange);
  pool.Run(NumBlocks(size),
           [&](int64_t block, int) { range(x + block * kBlock, std::min(kBlock, size - block * kBlock)); });
}

void SiluMul(float* gate, const float* up, int64_t size, ThreadPool& pool) {
  const auto range = &HWY_DYNAMIC_DISPATCH(SiluMulRange);
  pool.Run(NumBlocks(size), [&](int64_t block, int) {
    const int64_t first = block * kBlock;
    range(gate + first, up + first, std::min(kBlock, size - first));
  });
}

void LogSigmoid(float* x, int64_t size, ThreadPool& pool) {
  const auto range = &HWY_DYNAMIC_DISPATCH(LogSigmoidRange);
  pool.Run(NumBlocks(size),
           [&](int64_t block, int) { range(x + block * kBlock, std::min(kBlock, size - block * kBlock)); });
}

}  // namespace statehouse::kernels
#endif  // HWY_ONCE
