// Measures power retention on the current GPU: the result of a case is checked first, then timed.
//
// Thread-safety: one thread at a time.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/bench/retention_case.h"

namespace statehouse::kernels::bench {

// UNIMPLEMENTED names what there is no kernel for; RESOURCE_EXHAUSTED says how many bytes were wanted; DATA_LOSS gives
// the error of a result that is wrong.
absl::StatusOr<Figure> MeasureOnGpu(const RetentionCase& it, int64_t runs);

// FAILED_PRECONDITION if there is no GPU.
absl::StatusOr<Ceilings> MeasureGpu();

}  // namespace statehouse::kernels::bench
