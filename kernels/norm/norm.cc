#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm/norm.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/math/simd-inl.h"

#include <algorithm>
#include <cmath>

#include "kernels/norm/norm.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {

// Four groups of 16 lanes take turns, to hide the latency of the additions; they are added in a fixed order at the end.
constexpr int kTurns = 4;

struct Sum {
  HWY_INLINE F16 operator()(const F16& x, const F16& sum) const { return Add16(x, sum); }
};
struct SumOfSquares {
  HWY_INLINE F16 operator()(const F16& x, const F16& sum) const { return MulAdd16(x, x, sum); }
};

template <class Accumulate>
HWY_INLINE float Reduce(const float* x, int64_t size, const Accumulate& accumulate) {
  F16 sums[kTurns];
  for (F16& sum : sums) sum = Zero16();
  int64_t i = 0;
  for (; i + kTurns * kGroup <= size; i += kTurns * kGroup) {
    HWY_UNROLL(4)
    for (int turn = 0; turn < kTurns; ++turn) sums[turn] = accumulate(Load16(x + i + turn * kGroup), sums[turn]);
  }
  for (int turn = 0; i < size; i += kGroup, ++turn) {
    sums[turn] = accumulate(LoadFirst16(x + i, size - i), sums[turn]);
  }
  return TreeSum16(Add16(Add16(sums[0], sums[1]), Add16(sums[2], sums[3])));
}

void LayerNormRow(const float* x, const NormArgs& args, float* y) {
  const float mean = Reduce(x, args.size, Sum()) / static_cast<float>(args.size);
  // The centred row goes to y first (which may be x), so that the variance does not cancel.
  const F16 mean16 = Set16(mean);
  for (int64_t i = 0; i < args.size; i += kGroup) {
    const int64_t count = HWY_MIN(args.size - i, int64_t{kGroup});
    StoreFirst16(Sub16(LoadFirst16(x + i, count), mean16), count, y + i);
  }
  const float variance = Reduce(y, args.size, SumOfSquares()) / static_cast<float>(args.size);
  const F16 inverse = Set16(1.0f / std::sqrt(variance + args.epsilon));
  for (int64_t i = 0; i < args.size; i += kGroup) {
    const int64_t count = HWY_MIN(args.size - i, int64_t{kGroup});
    const F16 normal = Mul16(LoadFirst16(y + i, count), inverse);
    const F16 weight = LoadFirst16(args.weight + i, count);
    const F16 out =
        args.bias == nullptr ? Mul16(normal, weight) : MulAdd16(normal, weight, LoadFirst16(args.bias + i, count));
    StoreFirst16(out, count, y + i);
  }
}

void RmsNormRow(const float* x, const NormArgs& args, float* y) {
  const float mean_square = Reduce(x, args.size, SumOfSquares()) / static_cast<float>(args.size);
  const F16 inverse = Set16(1.0f / std::sqrt(mean_square + args.epsilon));
  for (int64_t i = 0; i < args.size; i += kGroup) {
    const int64_t count = HWY_MIN(args.size - i, int64_t{kGroup});
    const F16 normal = Mul16(LoadFirst16(x + i, count), inverse);
    StoreFirst16(Mul16(normal, LoadFirst16(args.weight + i, count)), count, y + i);
  }
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace statehouse::kernels {
HWY_EXPORT(LayerNormRow);
HWY_EXPORT(RmsNormRow);

namespace {

template <typename RowFn>
void ForEachRow(const NormArgs& args, const RowFn& row_fn, ThreadPool& pool) {
  // Rows per task: about 16 K elements, a few microseconds.
  const int64_t rows_per_task = std::max<int64_t>(1, 16384 / std::max<int64_t>(args.size, 1));
  const int64_t num_tasks = (args.num_rows + rows_per_task - 1) / rows_per_task;
  pool.Run(num_tasks, [&](int64_t task_idx, int) {
    const int64_t end = std::min(args.num_rows, (task_idx + 1) * rows_per_task);
    for (int64_t row = task_idx * rows_per_task; row < end; ++row) {
      row_fn(args.x + row * args.size, args, args.y + row * args.size);
    }
  });
}

}  // namespace

void LayerNorm(const NormArgs& args, ThreadPool& pool) { ForEachRow(args, &HWY_DYNAMIC_DISPATCH(LayerNormRow), pool); }
void RmsNorm(const NormArgs& args, ThreadPool& pool) { ForEachRow(args, &HWY_DYNAMIC_DISPATCH(RmsNormRow), pool); }

}  // namespace statehouse::kernels
#endif  // HWY_ONCE
