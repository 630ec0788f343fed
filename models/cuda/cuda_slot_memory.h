// Slots in a GPU's memory. What touches host memory goes there at once if that is page-locked (Model::page_locker());
// else through page-locked places, which the pool's threads fill or empty while the link moves others. It has a stream
// of its own, which waits for all that was queued on the model's stream but for a step under way that was begun alone,
// which holds other slots. The rest is queued on the model's stream.
// Thread-safety: the engine thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/cuda/device.h"
#include "kernels/parallel/thread_pool.h"
#include "models/cuda/cuda_event.h"
#include "models/cuda/cuda_workspace.h"
#include "models/slot_memory.h"

namespace statehouse {

class CudaSlotMemory final : public SlotMemory {
 public:
  // RESOURCE_EXHAUSTED says how many bytes are needed and free. `stream`, `settled` and `pool` must outlive the object,
  // whose device is `device_idx`; `pool` may be null. `settled` is the mark in `stream` behind which only a step under
  // way comes.
  static absl::StatusOr<std::unique_ptr<SlotMemory>> Allocate(int64_t slot_bytes, int64_t num_slots, int device_idx,
                                                              cudaStream_t stream, const CudaEvent* settled,
                                                              kernels::ThreadPool* pool);
  ~CudaSlotMemory() override;

  float* slot(int64_t idx) override { return reinterpret_cast<float*>(slots_.as<char>() + idx * slot_bytes_); }
  void Zero(float* to, int64_t floats) override;
  void Copy(const float* from, float* to, int64_t floats) override;
  void Write(const float* host, float* to, int64_t floats) override;
  void Read(const float* from, float* host, int64_t floats) override;
  absl::Status status() const override { return status_; }

 private:
  // Floats of a place: few enough for the link and the threads to be busy at once within one region of a slot, enough
  // for the link to reach its rate.
  static constexpr int64_t kPlaceFloats = int64_t{1} << 18;
  static constexpr int64_t kPlaces = 16;

  CudaSlotMemory(int64_t slot_bytes, int device_idx, cudaStream_t stream, const CudaEvent* settled,
                 kernels::ThreadPool* pool, kernels::Stream copies)
      : slot_bytes_(slot_bytes),
        device_idx_(device_idx),
        stream_(stream),
        settled_(settled),
        pool_(pool),
        copies_(std::move(copies)) {}
  // Moves all of it if `host` is page-locked, and waits; false: it is not.
  bool MoveAtOnce(const float* host, void* to, const void* from, int64_t floats, cudaMemcpyKind kind);
  // Copies wait for what changed slots before.
  void BeginCopy();
  void Note(cudaError_t result, const char* call) { Note(kernels::CudaStatus(result, call)); }
  void Note(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }
  // Calls fn(first float, floats) for all of it, from several threads.
  template <typename Fn>
  void ForEachStretch(int64_t floats, const Fn& fn);
  float* Place(int64_t place) { return staging_.as<float>() + place * kPlaceFloats; }
  // The caller's thread may have another device current.
  void UseDevice() { Note(cudaSetDevice(device_idx_), "cudaSetDevice"); }

  const int64_t slot_bytes_;
  const int device_idx_;
  const cudaStream_t stream_;
  const CudaEvent* const settled_;
  kernels::ThreadPool* const pool_;
  const kernels::Stream copies_;  // with the host
  CudaEvent changed_;             // in stream_: the last change of this object's
  CudaEvent written_;             // in copies_: the last piece into a slot
  kernels::DeviceBuffer slots_;
  PinnedBuffer staging_;      // [kPlaces, kPlaceFloats]
  CudaEvent moved_[kPlaces];  // the last copy between a place and a slot
  int64_t next_place_ = 0;    // for what goes into a slot
  absl::Status status_;
};

}  // namespace statehouse
