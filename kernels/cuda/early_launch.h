// Kernels whose start is hidden behind the kernel before them: a decode step is a long chain of short ones.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "kernels/cuda/launch.h"

namespace statehouse::kernels {

// Whether kernels on the current device may start before the one queued before them has ended.
inline bool CanOverlap() {
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 9;
}

// Queues a kernel that calls WaitForResults() (mma.cuh) in every block before it touches what others write; with
// `overlaps` it may start before the kernel queued before it has ended.
template <typename... Parameters, typename... Arguments>
absl::Status LaunchPerhapsEarly(bool overlaps, const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                int shared_bytes, cudaStream_t stream, const Arguments&... arguments) {
  // A multiprocessor that must change this share first empties itself, and nothing overlaps.
  if (absl::Status status = PreferShared(kernel); !status.ok()) return status;
  const LaunchConfig config(grid, block, shared_bytes, stream, overlaps && CanOverlap());
  return CudaStatus(cudaLaunchKernelEx(config.get(), kernel, Parameters(arguments)...), name);
}

template <typename... Parameters, typename... Arguments>
absl::Status LaunchEarly(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, int shared_bytes,
                         cudaStream_t stream, const Arguments&... arguments) {
  return LaunchPerhapsEarly(true, name, kernel, grid, block, shared_bytes, stream, arguments...);
}

}  // namespace statehouse::kernels
