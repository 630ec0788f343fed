// How a kernel is queued where the launch syntax does not do.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "kernels/cuda/status.h"

namespace statehouse::kernels {

// `overlaps`: the kernel may start before the one queued before it has ended (see LetDependentsStart() in mma.cuh);
// only from compute capability 9.0 on.
class LaunchConfig {
 public:
  LaunchConfig(dim3 grid, dim3 block, int shared_bytes, cudaStream_t stream, bool overlaps) {
    attribute_.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute_.val.programmaticStreamSerializationAllowed = 1;
    config_.gridDim = grid;
    config_.blockDim = block;
    config_.dynamicSmemBytes = shared_bytes;
    config_.stream = stream;
    config_.attrs = &attribute_;
    config_.numAttrs = overlaps ? 1 : 0;
  }
  LaunchConfig(const LaunchConfig&) = delete;
  LaunchConfig& operator=(const LaunchConfig&) = delete;

  const cudaLaunchConfig_t* get() const { return &config_; }

 private:
  cudaLaunchAttribute attribute_ = {};
  cudaLaunchConfig_t config_ = {};
};

// A block may use more than 48 KB of shared memory only after this.
template <typename Kernel>
absl::Status AllowShared(Kernel* kernel, int bytes) {
  if (bytes <= 48 * 1024) return absl::OkStatus();
  return CudaStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                    "cudaFuncSetAttribute");
}

// Asks for the largest share of the multiprocessor's memory as shared memory, so that as many blocks as fit run there.
template <typename Kernel>
absl::Status PreferShared(Kernel* kernel) {
  return CudaStatus(
      cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
      "cudaFuncSetAttribute");
}

}  // namespace statehouse::kernels
