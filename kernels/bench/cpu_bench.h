// Measures power retention on the CPU: the result of a case is checked first, then timed.
//
// Thread-safety: as the pool's.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/bench/retention_case.h"
#include "kernels/parallel/thread_pool.h"

namespace statehouse::kernels::bench {

// Forward in steps of up to 512 rows, as a prefill runs; decode after as many tokens as the case says. `runs`: at most;
// fewer where they would take more than `max_seconds`, never below 3. UNIMPLEMENTED: backward passes, and any type but
// float32. RESOURCE_EXHAUSTED, DATA_LOSS as on a GPU.
absl::StatusOr<Figure> MeasureOnCpu(const RetentionCase& it, int64_t runs, double max_seconds, ThreadPool& pool);

// `device` is left empty: what the processor is called is no business of kernels.
Ceilings MeasureCpu(ThreadPool& pool);

}  // namespace statehouse::kernels::bench
