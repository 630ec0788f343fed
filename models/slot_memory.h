// The memory of a model's slots, where the model computes: its addresses are opaque to all but the model. Operations
// take effect in the order of calls, before any later step of the model reads the memory.
//
// Errors of a device are kept in status() and also fail the model's next step. Thread-safety: the engine thread.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace statehouse {

class SlotMemory {
 public:
  virtual ~SlotMemory() = default;

  // The start of slot `idx`; zero at first.
  virtual float* slot(int64_t idx) = 0;
  virtual void Zero(float* to, int64_t floats) = 0;
  // Between slots.
  virtual void Copy(const float* from, float* to, int64_t floats) = 0;
  // Between a slot and host memory, which may be changed or read once the call returns. On a device faster if it is
  // page-locked (models/page_locker.h).
  virtual void Write(const float* host, float* to, int64_t floats) = 0;
  virtual void Read(const float* from, float* host, int64_t floats) = 0;
  // The first error of all; what was read after it means nothing.
  virtual absl::Status status() const { return absl::OkStatus(); }
};

// In this host's memory. RESOURCE_EXHAUSTED says how many bytes are needed.
absl::StatusOr<std::unique_ptr<SlotMemory>> AllocateHostSlots(int64_t slot_bytes, int64_t num_slots);

}  // namespace statehouse
