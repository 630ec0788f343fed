// CUDA results as absl::Status, with the call, what the runtime says and where it was made.
//
//   absl::Status Copy(...) { return CudaStatus(cudaMemcpyAsync(...), "cudaMemcpyAsync"); }
//
// cudaErrorMemoryAllocation becomes RESOURCE_EXHAUSTED, "no device" and "no driver" FAILED_PRECONDITION, a kernel image
// that this GPU cannot run UNIMPLEMENTED, all else INTERNAL. Thread-safety: all functions may be called from any
// thread.
#pragma once

#include <cuda_runtime_api.h>

#include <source_location>

#include "absl/status/status.h"

namespace statehouse::kernels {

absl::Status CudaStatus(cudaError_t result, const char* call,
                        std::source_location where = std::source_location::current());

// Call after every launch: reports launches that could not start. What fails while a kernel runs is reported by the
// next call that waits for it.
absl::Status LaunchStatus(const char* kernel, std::source_location where = std::source_location::current());

}  // namespace statehouse::kernels
