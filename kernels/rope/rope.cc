#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rope/rope.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/math/simd-inl.h"

#include <algorithm>

#include "kernels/math/scalar_math.h"
#include "kernels/rope/rope.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {

// One row: x [num_heads, head_dim], cos and sin [head_dim / 2].
//   (a, b) <- (a cos - b sin, b cos + a sin), the second product of each fused.
void RotateRow(const float* cos, const float* sin, int64_t num_heads, int64_t head_dim, float* x) {
  const int64_t half = head_dim / 2;
  for (int64_t head = 0; head < num_heads; ++head) {
    float* first = x + head * head_dim;
    float* second = first + half;
    for (int64_t i = 0; i < half; i += kGroup) {
      const int64_t count = HWY_MIN(half - i, int64_t{kGroup});
      const F16 a = LoadFirst16(first + i, count);
      const F16 b = LoadFirst16(second + i, count);
      const F16 c = LoadFirst16(cos + i, count);
      const F16 s = LoadFirst16(sin + i, count);
      const F16 minus_s = Map16(s, [](VF v) HWY_ATTR { return hn::Neg(v); });
      StoreFirst16(MulAdd16(b, minus_s, Mul16(a, c)), count, first + i);
      StoreFirst16(MulAdd16(a, s, Mul16(b, c)), count, second + i);
    }
  }
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace statehouse::kernels {
HWY_EXPORT(RotateRow);

RopeFrequencies::RopeFrequencies(int head_dim, double theta) : head_dim_(head_dim), turns_(head_dim / 2) {
  for (int i = 0; i < head_dim / 2; ++i) turns_[i] = PowOverTwoPi(theta, -2.0 * i, head_dim);
}

void RopeFrequencies::Angles(int64_t position, float* cos, float* sin) const {
  for (size_t i = 0; i < turns_.size(); ++i) {
    const SinCosResult result = SinCosTurns(FractionOfProduct(static_cast<double>(position), turns_[i]));
    cos[i] = static_cast<float>(result.cos);
    sin[i] = static_cast<float>(result.sin);
  }
}

void ApplyRope(const RopeArgs& args, ThreadPool& pool) {
  const auto rotate_row = &HWY_DYNAMIC_DISPATCH(RotateRow);
  const int64_t row_size = args.num_heads * args.head_dim;
  const int64_t rows_per_task = std::max<int64_t>(1, 16384 / std::max<int64_t>(row_size, 1));
  const int64_t num_tasks = (args.num_rows + rows_per_task - 1) / rows_per_task;
  pool.Run(num_tasks, [&](int64_t task_idx, int) {
    const int64_t end = std::min(args.num_rows, (task_idx + 1) * rows_per_task);
    for (int64_t row = task_idx * rows_per_task; row < end; ++row) {
      const int64_t angles = row * (args.head_dim / 2);
      rotate_row(args.cos + angles, args.sin + angles, args.num_heads, args.head_dim, args.x + row * row_size);
    }
  });
}

}  // namespace statehouse::kernels
#endif  // HWY_ONCE
