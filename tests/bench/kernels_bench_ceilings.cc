#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/kernels_bench_ceilings.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

#include <algorithm>

#include "tests/bench/kernels_bench_ceilings.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::CappedTag<float, 16>;

constexpr int64_t kFmaRounds = 2'000'000;
constexpr int kChains = 12;  // enough to hide the latency of any core so far; they fit in 16 registers

// Fetching ahead helps or hurts, depending on what the host's memory is doing: the ceiling is the better of both.
float SumOf(const float* data, int64_t count, int64_t floats_ahead) {
  const DF df;
  auto s0 = hn::Zero(df), s1 = s0, s2 = s0, s3 = s0;
  const int64_t step = 4 * static_cast<int64_t>(hn::Lanes(df));
  for (int64_t i = 0; i + step <= count; i += step) {
    if (floats_ahead != 0) {
      for (int64_t line = 0; line < step; line += 16) __builtin_prefetch(data + i + line + floats_ahead);
    }
    s0 = hn::Add(s0, hn::LoadU(df, data + i));
    s1 = hn::Add(s1, hn::LoadU(df, data + i + step / 4));
    s2 = hn::Add(s2, hn::LoadU(df, data + i + step / 2));
    s3 = hn::Add(s3, hn::LoadU(df, data + i + step / 4 * 3));
  }
  return hn::GetLane(hn::SumOfLanes(df, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

// Returns a number that depends on every operation, so that none is left out.
float FmaChains(double* flops) {
  const DF df;
  hn::Vec<DF> chain[kChains];
  HWY_UNROLL(12)
  for (int i = 0; i < kChains; ++i) chain[i] = hn::Set(df, static_cast<float>(i));
  const auto factor = hn::Set(df, 0.999f);
  const auto addend = hn::Set(df, 0.001f);
  for (int64_t round = 0; round < kFmaRounds; ++round) {
    HWY_UNROLL(12)
    for (int i = 0; i < kChains; ++i) chain[i] = hn::MulAdd(chain[i], factor, addend);
  }
  auto sum = hn::Zero(df);
  for (int i = 0; i < kChains; ++i) sum = hn::Add(sum, chain[i]);
  *flops = 2.0 * kFmaRounds * kChains * static_cast<double>(hn::Lanes(df));
  return hn::GetLane(hn::SumOfLanes(df, sum));
}

}  // namespace statehouse::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace statehouse::bench {
HWY_EXPORT(SumOf);
HWY_EXPORT(FmaChains);

namespace {
volatile float sink = 0;
}  // namespace

void ReadAll(const float* data, int64_t bytes, int64_t bytes_ahead, kernels::ThreadPool& pool) {
  const int64_t count = bytes / 4;
  constexpr int64_t kBlock = 1 << 18;  // 1 MB
  pool.Run((count + kBlock - 1) / kBlock, [&](int64_t block, int) {
    const float sum =
        HWY_DYNAMIC_DISPATCH(SumOf)(data + block * kBlock, std::min(kBlock, count - block * kBlock), bytes_ahead / 4);
    if (sum == 12345.678f) sink = sum;
  });
}

double FmaInRegisters(kernels::ThreadPool& pool) {
  double flops = 0;
  pool.Run(pool.num_threads(), [&](int64_t task, int) {
    double mine = 0;
    const float sum = HWY_DYNAMIC_DISPATCH(FmaChains)(&mine);
    if (sum == 12345.678f) sink = sum;
    if (task == 0) flops = mine;
  });
  return flops * pool.num_threads();
}

const char* InstructionSet() {
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return hwy::TargetName(hwy::SupportedTargets() & ~(hwy::SupportedTargets() - 1));
}

}  // namespace statehouse::bench
#endif  // HWY_ONCE
