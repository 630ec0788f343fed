// Timing of what happens to slots between decode steps: the fold of a full chunk, a fork's copy, clearing.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "tests/bench/cuda_bench_support.h"

namespace statehouse::kernels::bench {

// One layer's slots of a batch, PowerCoder's shape. Results are checked by tests/kernels/cuda_slot_ops_test.cc.
std::vector<Row> BenchSlots(cudaStream_t stream, int runs);

}  // namespace statehouse::kernels::bench
