#include "engine/stats.h"

namespace statehouse {

void Histogram::Observe(double seconds) {
  size_t idx = 0;
  while (idx < kBounds.size() && seconds > kBounds[idx]) ++idx;
  // One writer, so a load and a store add up.
  buckets_[idx].fetch_add(1, std::memory_order_relaxed);
  sum_.store(sum_.load(std::memory_order_relaxed) + seconds, std::memory_order_relaxed);
  count_.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace statehouse
