// What a GPU reaches at best, measured: the ceilings of benchmarks. Uses the current device.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace statehouse::kernels {

// Bytes per second of a large copy within the device, bytes read plus bytes written; needs twice `bytes` of memory.
absl::StatusOr<double> MeasureGpuCopy(int64_t bytes);
// Operations per second of cuBLAS on random bf16 numbers, 8192 x 8192 x 8192. NOT_FOUND if there is no cuBLAS.
absl::StatusOr<double> MeasureGpuProducts();

struct GpuCeilings {
  double copy_bytes_per_s = 0;
  double bf16_flops_per_s = 0;
};
// Both: takes about 100 ms and 1.3 GB for a moment.
absl::StatusOr<GpuCeilings> MeasureGpuCeilings();

}  // namespace statehouse::kernels
