#include "kernels/cuda/status.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace statehouse::kernels {
namespace {

absl::StatusCode CodeOf(cudaError_t result) {
  switch (result) {
    case cudaErrorMemoryAllocation:
      return absl::StatusCode::kResourceExhausted;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemDriverMismatch:
      return absl::StatusCode::kFailedPrecondition;
    case cudaErrorNoKernelImageForDevice:
      return absl::StatusCode::kUnimplemented;
    default:
      return absl::StatusCode::kInternal;
  }
}

// The part of a path that means something to a reader of the sources.
const char* ShortPath(const char* path) {
  const std::string text(path);
  const size_t kernels = text.rfind("kernels/");
  return kernels == std::string::npos ? path : path + kernels;
}

}  // namespace

absl::Status CudaStatus(cudaError_t result, const char* call, std::source_location where) {
  if (result == cudaSuccess) return absl::OkStatus();
  std::string text = absl::StrCat("CUDA: ", call, ": ", cudaGetErrorString(result), " (", cudaGetErrorName(result),
                                  ") at ", ShortPath(where.file_name()), ":", where.line());
  if (result == cudaErrorInsufficientDriver) absl::StrAppend(&text, "; update the NVIDIA driver");
  if (result == cudaErrorNoKernelImageForDevice) {
    absl::StrAppend(&text, "; this build has code for compute capability 8.x and 9.0");
  }
  return absl::Status(CodeOf(result), text);
}

absl::Status LaunchStatus(const char* kernel, std::source_location where) {
  return CudaStatus(cudaGetLastError(), kernel, where);
}

}  // namespace statehouse::kernels
