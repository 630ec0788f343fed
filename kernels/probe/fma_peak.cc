#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/probe/fma_peak.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/probe/fma_peak.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// `rounds` steps of twelve chains that do not wait for one another: more than any core needs to keep its units busy.
// Returns the operations done; *sink depends on all of them.
double FmaChains(int64_t rounds, float seed, float* sink) {
  const hn::ScalableTag<float> df;
  const auto factor = hn::Set(df, 0.999f + seed), addend = hn::Set(df, 0.001f);
  auto a = hn::Set(df, seed + 1), b = hn::Set(df, seed + 2), c = hn::Set(df, seed + 3), d = hn::Set(df, seed + 4);
  auto e = hn::Set(df, seed + 5), f = hn::Set(df, seed + 6), g = hn::Set(df, seed + 7), h = hn::Set(df, seed + 8);
  auto i = hn::Set(df, seed + 9), j = hn::Set(df, seed + 10), k = hn::Set(df, seed + 11), l = hn::Set(df, seed + 12);
  for (int64_t round = 0; round < rounds; ++round) {
    a = hn::MulAdd(a, factor, addend), b = hn::MulAdd(b, factor, addend), c = hn::MulAdd(c, factor, addend);
    d = hn::MulAdd(d, factor, addend), e = hn::MulAdd(e, factor, addend), f = hn::MulAdd(f, factor, addend);
    g = hn::MulAdd(g, factor, addend), h = hn::MulAdd(h, factor, addend), i = hn::MulAdd(i, factor, addend);
    j = hn::MulAdd(j, factor, addend), k = hn::MulAdd(k, factor, addend), l = hn::MulAdd(l, factor, addend);
  }
  const auto sum = hn::Add(hn::Add(hn::Add(hn::Add(a, b), hn::Add(c, d)), hn::Add(hn::Add(e, f), hn::Add(g, h))),
                           hn::Add(hn::Add(i, j), hn::Add(k, l)));
  *sink += hn::GetLane(hn::SumOfLanes(df, sum));
  return static_cast<double>(rounds) * 12 * 2 * static_cast<double>(hn::Lanes(df));
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace statehouse::kernels {
HWY_EXPORT(FmaChains);

double MeasureFmaPeak(ThreadPool& pool, int runs) {
  constexpr int64_t kRounds = 200'000;  // about half a millisecond
  constexpr int kTasksPerThread = 4;
  const auto chains = HWY_DYNAMIC_DISPATCH(FmaChains);
  std::vector<float> sinks(pool.num_threads() * 32);
  std::vector<double> flops(pool.num_threads() * 16);
  double best = 0;
  for (int run = 0; run < runs; ++run) {
    std::fill(flops.begin(), flops.end(), 0.0);
    const auto start = std::chrono::steady_clock::now();
    pool.Run(int64_t{kTasksPerThread} * pool.num_threads(), [&](int64_t task, int worker) {
      flops[worker * 16] += chains(kRounds, static_cast<float>(task) * 1e-6f, &sinks[worker * 32]);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    double total = 0;
    for (double count : flops) total += count;
    best = std::max(best, total / seconds.count());
  }
  volatile float keep = 0;
  for (float sink : sinks) keep = keep + sink;
  return best;
}

}  // namespace statehouse::kernels
#endif  // HWY_ONCE
