// What a step of a GPU model works on: activations on the device, and the step's tables, written on the host and copied
// in one piece. Row i of each array belongs to row i of the step. Thread-safety: the engine thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/cuda/device.h"
#include "kernels/power_retention/cuda/slot_retention.h"
#include "kernels/sampling/cuda/choose.h"
#include "models/config.h"
#include "models/model.h"  // StepBatch

namespace statehouse {

// Page-locked host memory: copies to and from it need no detour.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  ~PinnedBuffer() { Free(); }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  // Does nothing if it holds that many already. RESOURCE_EXHAUSTED.
  absl::Status Allocate(size_t bytes);
  void Free();
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

class CudaWorkspace {
 public:
  // Steps that may be under way at once: what the host writes for one, and reads of it, is there for each.
  static constexpr int kPlaces = 2;

  // Grows, never shrinks. RESOURCE_EXHAUSTED says how many bytes were asked for.
  absl::Status Reserve(const ModelConfig& config, const kernels::SlotRetentionPlan& plan, int64_t max_rows,
                       int64_t max_logit_rows, bool is_bf16);
  // What Reserve() would allocate on the device, without the tables.
  static int64_t Bytes(const ModelConfig& config, int64_t max_rows, int64_t max_logit_rows, bool is_bf16);
  int64_t bytes() const {
    return static_cast<int64_t>(arrays_.bytes() + tables_.bytes() + kPlaces * host_tables_[0].bytes());
  }

  // Writes the step's tables and queues their copy. INTERNAL if the step is larger than what was reserved. `place`, one
  // of kPlaces, is where they lie on the host until the step has ended.
  absl::Status Begin(const StepBatch& batch, std::span<const LogitUse> uses, const kernels::SlotRetentionPlan& plan,
                     int place, cudaStream_t stream);

  int64_t num_rows() const { return num_rows_; }
  int64_t num_logits() const { return num_logits_; }
  int64_t num_choices() const { return num_choices_; }
  // Where a step's chosen tokens come to, in page-locked memory that the GPU writes itself.
  int32_t* host_chosen(int place) const { return host_chosen_[place].as<int32_t>(); }

  // Where a step's logits with LogitUse::keeps lie, in the rows that they have in `logits`, until its place is used
  // again.
  float* KeptLogits(int place) const { return kept + place * kept_floats_; }

  float* x = nullptr;         // [rows, hidden] residual stream
  void* normed = nullptr;     // [rows or logit rows, hidden]
  float* heads = nullptr;     // [rows, CudaWeights::HeadsWidth()]: q, k, v, gates
  void* y = nullptr;          // [rows, Hq d]
  void* mlp = nullptr;        // [rows, intermediate], or twice that for gate and up
  void* gated = nullptr;      // [rows, intermediate]: gate times up
  float2* angles = nullptr;   // [rows, d / 2]
  float* logits = nullptr;    // [logit rows, vocab]
  float* kept = nullptr;      // see KeptLogits()
  int32_t* chosen = nullptr;  // [logit rows]: of this step, and of the one before until then
  // The tables, on the device.
  const int32_t* tokens = nullptr;
  const int64_t* positions = nullptr;
  const int32_t* logit_rows = nullptr;
  const kernels::SlotSegment* segments = nullptr;
  const kernels::SlotTile* tiles = nullptr;
  const int32_t* folds = nullptr;
  const kernels::CudaChoice* choices = nullptr;

 private:
  struct Offsets {
    size_t tokens = 0, positions = 0, logit_rows = 0, segments = 0, tiles = 0, folds = 0, choices = 0, end = 0;
  };

  int64_t max_rows_ = 0, max_logit_rows_ = 0;
  int64_t kept_floats_ = 0;
  int64_t num_rows_ = 0, num_logits_ = 0, num_choices_ = 0;
  kernels::DeviceBuffer arrays_, tables_;
  PinnedBuffer host_tables_[kPlaces], host_chosen_[kPlaces];
  Offsets offsets_;
};

}  // namespace statehouse
