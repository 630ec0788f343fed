// A mark in a stream that the host can wait for, while what was queued after it goes on. Made at its first use, on the
// device that is current then. Thread-safety: none.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "kernels/cuda/status.h"

namespace statehouse {

class CudaEvent {
 public:
  CudaEvent() = default;
  ~CudaEvent() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  // Takes the place of the mark before.
  absl::Status Record(cudaStream_t stream) {
    if (event_ == nullptr) {
      const cudaError_t made = cudaEventCreateWithFlags(&event_, cudaEventDisableTiming);
      if (made != cudaSuccess) return kernels::CudaStatus(made, "cudaEventCreate");
    }
    return kernels::CudaStatus(cudaEventRecord(event_, stream), "cudaEventRecord");
  }
  // Returns at once where nothing was recorded. The error is that of anything queued before, too.
  absl::Status Wait() const {
    if (event_ == nullptr) return absl::OkStatus();
    return kernels::CudaStatus(cudaEventSynchronize(event_), "cudaEventSynchronize");
  }
  // What `stream` is given from now on waits for the mark.
  absl::Status HoldUp(cudaStream_t stream) const {
    if (event_ == nullptr) return absl::OkStatus();
    return kernels::CudaStatus(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent");
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace statehouse
