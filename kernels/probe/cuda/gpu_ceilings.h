// What a GPU reaches at best, measured: the ceilings of benchmarks. Uses the current device.
#pragma once

#include "absl/status/statusor.h"

namespace statehouse::kernels {

struct GpuCeilings {
  double copy_bytes_per_s = 0;  // a large copy within the device, bytes read plus bytes written
  double bf16_flops_per_s = 0;  // cuBLAS, 8192 x 8192 x 8192
};
// Takes about 100 ms and 1.5 GB for a moment.
absl::StatusOr<GpuCeilings> MeasureGpuCeilings();

}  // namespace statehouse::kernels
