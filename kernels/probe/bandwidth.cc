#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/probe/bandwidth.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/math/aligned_buffer.h"
#include "kernels/probe/bandwidth.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Reads [data, data + size) and returns a value that depends on all of it, so that no read can be left out.
uint32_t ReadAll(const uint32_t* data, int64_t size) {
  const hn::ScalableTag<uint32_t> du;
  const auto lanes = static_cast<int64_t>(hn::Lanes(du));
  auto a = hn::Zero(du), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes) {
    a = hn::Xor(a, hn::LoadU(du, data + i));
    b = hn::Xor(b, hn::LoadU(du, data + i + lanes));
    c = hn::Xor(c, hn::LoadU(du, data + i + 2 * lanes));
    d = hn::Xor(d, hn::LoadU(du, data + i + 3 * lanes));
  }
  uint32_t rest = 0;
  for (; i < size; ++i) rest ^= data[i];
  return rest ^ hn::GetLane(hn::SumOfLanes(du, hn::Xor(hn::Xor(a, b), hn::Xor(c, d))));
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace statehouse::kernels {
HWY_EXPORT(ReadAll);

double MeasureReadBandwidth(int64_t num_bytes, ThreadPool& pool, int runs) {
  constexpr int64_t kPage = 4096;
  const int64_t bytes = std::max(num_bytes, kPage * pool.num_threads());
  AlignedBuffer buffer;
  if (!buffer.Allocate(bytes)) return 0;
  // Untouched memory is one shared page of zeros; written, it is memory.
  std::fill_n(buffer.as<uint32_t>(), bytes / static_cast<int64_t>(sizeof(uint32_t)), 0x9E3779B9u);
  // Enough pieces that no thread waits for another, and whole pages.
  const int64_t piece = std::max(kPage, bytes / (pool.num_threads() * 16) / kPage * kPage);
  const int64_t num_pieces = (bytes + piece - 1) / piece;
  const auto read_all = HWY_DYNAMIC_DISPATCH(ReadAll);
  std::vector<uint32_t> sinks(pool.num_threads() * 32);  // a cache line or two apart
  double best_seconds = 1e300;
  for (int run = 0; run < runs; ++run) {
    const auto start = std::chrono::steady_clock::now();
    pool.Run(num_pieces, [&](int64_t piece_idx, int worker) {
      const int64_t first = piece_idx * piece;
      const int64_t count = std::min(piece, bytes - first);
      sinks[worker * 32] ^= read_all(buffer.as<uint32_t>() + first / 4, count / 4);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best_seconds = std::min(best_seconds, seconds.count());
  }
  volatile uint32_t keep = 0;
  for (uint32_t sink : sinks) keep = keep ^ sink;
  return static_cast<double>(bytes) / best_seconds;
}

}  // namespace statehouse::kernels
#endif  // HWY_ONCE
