// What this machine's memory delivers: the ceiling that decoding is measured against.
//
// Every thread of the pool reads its share of one buffer, all of it, as fast as it can. A buffer smaller than a cache
// measures that cache: ask with as many bytes as the work in question reads. Thread-safety: as the pool's.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/math/aligned_buffer.h"
#include "kernels/parallel/thread_pool.h"

namespace statehouse::kernels {

// A buffer to read again and again, between the runs of what is measured: on a shared host the memory's speed changes
// from second to second.
class BandwidthProbe {
 public:
  // At least one page per thread is read.
  BandwidthProbe(int64_t num_bytes, ThreadPool& pool);
  // Bytes per second of one pass; 0 if the memory could not be had.
  double Pass();

 private:
  ThreadPool& pool_;
  AlignedBuffer buffer_;
  std::vector<uint32_t> sinks_;
};

// Bytes per second of the fastest of `runs` passes over `num_bytes` (at least one page per thread is read); 0 if the
// memory cannot be had.
double MeasureReadBandwidth(int64_t num_bytes, ThreadPool& pool, int runs = 20);

}  // namespace statehouse::kernels
