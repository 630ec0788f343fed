// What this machine's cores compute: the ceiling that prefill is measured against.
//
// Independent chains of fused multiply-adds on registers alone, on every thread of the pool. Thread-safety: as the
// pool's.
#pragma once

#include "kernels/parallel/thread_pool.h"

namespace statehouse::kernels {

// Floating-point operations per second, float32, a multiply-add counted as two; of the fastest of `runs` passes.
double MeasureFmaPeak(ThreadPool& pool, int runs = 20);

}  // namespace statehouse::kernels
