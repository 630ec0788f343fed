// The two kinds of cases of gpu_bench.h. Private to kernels/bench.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/bench/retention_case.h"

namespace statehouse::kernels::bench {

absl::StatusOr<Figure> MeasureSequences(const RetentionCase& it, cudaStream_t stream, int64_t runs);
absl::StatusOr<Figure> MeasureDecode(const RetentionCase& it, cudaStream_t stream, int64_t runs);

// DATA_LOSS if a result with this error must not be timed.
absl::Status AcceptError(const RetentionCase& it, double error);

}  // namespace statehouse::kernels::bench
