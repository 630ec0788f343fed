// Slots in a GPU's memory. All operations are queued on the model's stream; those that touch host memory go through a
// pinned buffer and wait. Thread-safety: the engine thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/device.h"
#include "models/cuda/cuda_workspace.h"
#include "models/slot_memory.h"

namespace statehouse {

class CudaSlotMemory final : public SlotMemory {
 public:
  // RESOURCE_EXHAUSTED says how many bytes are needed and free. `stream` must outlive the object, whose device is
  // `device_idx`.
  static absl::StatusOr<std::unique_ptr<SlotMemory>> Allocate(int64_t slot_bytes, int64_t num_slots, int device_idx,
                                                              cudaStream_t stream);
  ~CudaSlotMemory() override;

  float* slot(int64_t idx) override { return reinterpret_cast<float*>(slots_.as<char>() + idx * slot_bytes_); }
  void Zero(float* to, int64_t floats) override;
  void Copy(const float* from, float* to, int64_t floats) override;
  void Write(const float* host, float* to, int64_t floats) override;
  void Read(const float* from, float* host, int64_t floats) override;
  absl::Status status() const override { return status_; }

 private:
  CudaSlotMemory(int64_t slot_bytes, int device_idx, cudaStream_t stream)
      : slot_bytes_(slot_bytes), device_idx_(device_idx), stream_(stream) {}
  void Note(cudaError_t result, const char* call);
  // The caller's thread may have another device current.
  void UseDevice() { Note(cudaSetDevice(device_idx_), "cudaSetDevice"); }

  const int64_t slot_bytes_;
  const int device_idx_;
  const cudaStream_t stream_;
  kernels::DeviceBuffer slots_;
  PinnedBuffer staging_;
  absl::Status status_;
};

}  // namespace statehouse
