#include "models/cuda/cuda_page_locker.h"

#include <cuda_runtime_api.h>

#include "kernels/cuda/status.h"

namespace statehouse {

absl::Status CudaPageLocker::Lock(std::span<std::byte> memory) {
  absl::Status status = kernels::CudaStatus(cudaSetDevice(device_idx_), "cudaSetDevice");
  if (status.ok()) {
    status = kernels::CudaStatus(cudaHostRegister(memory.data(), memory.size(), cudaHostRegisterPortable),
                                 "cudaHostRegister");
  }
  if (!status.ok()) cudaGetLastError();  // not sticky
  return status;
}

// Without a device, as when the process ends, nothing is locked any more.
void CudaPageLocker::Unlock(std::span<std::byte> memory) {
  cudaSetDevice(device_idx_);  // the caller's thread may have another one
  if (cudaHostUnregister(memory.data()) != cudaSuccess) cudaGetLastError();
}

}  // namespace statehouse
