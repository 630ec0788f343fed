#include "engine/stats.h"

namespace statehouse {

void Histogram::Observe(double value) {
  size_t idx = 0;
  while (idx < bounds_.size() && value > bounds_[idx]) ++idx;
  // One writer, so a load and a store add up.
  buckets_[idx].fetch_add(1, std::memory_order_relaxed);
  sum_.store(sum_.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
  count_.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace statehouse
