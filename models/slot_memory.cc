#include "models/slot_memory.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/math/aligned_buffer.h"

namespace statehouse {
namespace {

class HostSlotMemory final : public SlotMemory {
 public:
  HostSlotMemory(kernels::AlignedBuffer buffer, int64_t slot_bytes)
      : buffer_(std::move(buffer)), slot_bytes_(slot_bytes) {}

  float* slot(int64_t idx) override { return reinterpret_cast<float*>(buffer_.data() + idx * slot_bytes_); }
  void Zero(float* to, int64_t floats) override { std::memset(to, 0, floats * sizeof(float)); }
  void Copy(const float* from, float* to, int64_t floats) override { std::memcpy(to, from, floats * sizeof(float)); }
  void Write(const float* host, float* to, int64_t floats) override { Copy(host, to, floats); }
  void Read(const float* from, float* host, int64_t floats) override { Copy(from, host, floats); }

 private:
  kernels::AlignedBuffer buffer_;
  const int64_t slot_bytes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SlotMemory>> AllocateHostSlots(int64_t slot_bytes, int64_t num_slots) {
  kernels::AlignedBuffer buffer;
  if (!buffer.Allocate(slot_bytes * num_slots)) {
    return absl::ResourceExhaustedError(absl::StrCat("state memory: ", num_slots, " slots of ", slot_bytes,
                                                     " bytes need ", slot_bytes * num_slots,
                                                     " bytes, and the host has too few"));
  }
  return std::make_unique<HostSlotMemory>(std::move(buffer), slot_bytes);
}

}  // namespace statehouse
