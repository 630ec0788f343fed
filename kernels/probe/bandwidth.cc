#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/probe/bandwidth.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

#include <algorithm>
#include <chrono>

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

namespace {
constexpr int64_t kPage = 4096;
}  // namespace

BandwidthProbe::BandwidthProbe(int64_t num_bytes, ThreadPool& pool) : pool_(pool), sinks_(pool.num_threads() * 32) {
  if (!buffer_.Allocate(std::max(num_bytes, kPage * pool.num_threads()))) return;
  // Untouched memory is one shared page of zeros; written, it is memory.
  std::fill_n(buffer_.as<uint32_t>(), buffer_.size() / static_cast<int64_t>(sizeof(uint32_t)), 0x9E3779B9u);
}

double BandwidthProbe::Pass() {
  const int64_t bytes = buffer_.size();
  if (bytes == 0) return 0;
  // Enough pieces that no thread waits for another, and whole pages.
  const int64_t piece = std::max(kPage, bytes / (pool_.num_threads() * 16) / kPage * kPage);
  const int64_t num_pieces = (bytes + piece - 1) / piece;
  const auto read_all = HWY_DYNAMIC_DISPATCH(ReadAll);
  const auto start = std::chrono::steady_clock::now();
  pool_.Run(num_pieces, [&](int64_t piece_idx, int worker) {
    const int64_t first = piece_idx * piece;
    const int64_t count = std::min(piece, bytes - first);
    sinks_[worker * 32] ^= read_all(buffer_.as<uint32_t>() + first / 4, count / 4);  // a cache line or two apart
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  volatile uint32_t keep = 0;
  for (const uint32_t sink : sinks_) keep = keep ^ sink;
  return static_cast<double>(bytes) / seconds.count();
}

double MeasureReadBandwidth(int64_t num_bytes, ThreadPool& pool, int runs) {
  BandwidthProbe probe(num_bytes, pool);
  double best = 0;
  for (int run = 0; run < runs; ++run) best = std::max(best, probe.Pass());
  return best;
}

}  // namespace statehouse::kernels
#endif  // HWY_ONCE
