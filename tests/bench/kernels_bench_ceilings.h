// What this machine can do at most, measured in the same run as what the kernels do.
#pragma once

#include <cstdint>

#include "kernels/parallel/thread_pool.h"

namespace statehouse::bench {

// Reads all of `bytes` (a multiple of 4096) once, with all threads in blocks like the kernels' tasks, fetching what
// lies `bytes_ahead` behind (0: leaves that to the hardware).
void ReadAll(const float* data, int64_t bytes, int64_t bytes_ahead, kernels::ThreadPool& pool);

// Fused multiply-adds on registers only, in all threads. Returns the floating-point operations done.
double FmaInRegisters(kernels::ThreadPool& pool);

// "AVX3", "AVX2", ...
const char* InstructionSet();

}  // namespace statehouse::bench
