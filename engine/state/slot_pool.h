// The slots: all sequence state, allocated once. A slot is taken, written by the model, released, zeroed in slices, and
// only then free again.
//
// Only what a sequence can have written is zeroed or copied: the start of each (layer, head) region, see
// RetentionLayout::UsedHeadFloats(). Pages that no sequence has reached are not touched, but count as used.
// Thread-safety: owned by the engine thread. Nothing allocates after Create().
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/power_retention/layout.h"
#include "models/model.h"
#include "models/slot_memory.h"

namespace statehouse {

// Sizes of a slot: num_regions regions (layer × head) of region_floats each, one after the other.
struct SlotShape {
  kernels::RetentionLayout layout;
  int64_t num_layers = 0;

  bool SameAs(const SlotShape& other) const;
  int64_t num_regions() const { return num_layers * layout.shape().heads_kv; }
  int64_t region_floats() const { return layout.head_floats(); }
  int64_t floats() const { return num_regions() * region_floats(); }
  // Rounded up to 128, so that every slot is aligned like the first.
  int64_t bytes() const { return (floats() * static_cast<int64_t>(sizeof(float)) + 127) / 128 * 128; }
};

class SlotPool {
 public:
  // In memory of `model`'s, or in the host's if that is null. RESOURCE_EXHAUSTED says how many bytes are needed and how
  // many there are.
  static absl::StatusOr<std::unique_ptr<SlotPool>> Create(const SlotShape& shape, int64_t num_slots,
                                                          Model* model = nullptr);

  int64_t num_slots() const { return static_cast<int64_t>(slots_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int64_t num_zeroing() const { return static_cast<int64_t>(dirty_.size()); }
  int64_t num_used() const { return num_slots() - num_free() - num_zeroing(); }
  int64_t slot_bytes() const { return shape_.bytes(); }

  // The first error of the device that holds the slots: what was saved since may be wrong.
  absl::Status status() const { return memory_->status(); }

  // A zeroed slot. REQUIRES: num_free() > 0.
  int32_t Take();
  float* memory(int32_t slot) { return memory_->slot(slot); }
  // The slot is about to hold up to `position` tokens.
  void NoteUse(int32_t slot, int64_t position);
  // The slot is about to change its form: all of it counts as written.
  void NoteFullUse(int32_t slot);
  // Gives a slot back; it is free once zeroed.
  void Release(int32_t slot);

  // Zeroes up to `max_bytes` of released slots, oldest first. Returns bytes zeroed; 0 if nothing was left.
  int64_t ZeroSlice(int64_t max_bytes);

  // Copies up to `max_bytes` more of a slot that holds `position` tokens. `*progress` starts at 0. Returns the bytes
  // copied;
  // `*progress` is kCopied when all is there.
  static constexpr int64_t kCopied = -1;
  int64_t CopySlice(int32_t from, int32_t to, int64_t position, int64_t max_bytes, int64_t* progress);

  // What a snapshot of the slot must hold of each region, in floats.
  int64_t used_floats(int32_t slot) const { return slots_[slot].used_floats; }
  // The same in slices between a slot and memory of [num_regions, used_floats] floats. A restored slot was just taken.
  int64_t SaveSlice(int32_t slot, float* to, int64_t max_bytes, int64_t* progress);
  int64_t RestoreSlice(const float* from, int64_t used_floats, int32_t slot, int64_t max_bytes, int64_t* progress);

 private:
  struct Slot {
    int64_t used_floats = 0;  // of each region: may be non-zero
    int64_t zeroed = 0;       // floats zeroed so far, counted over all regions' used parts
  };

  // Calls fn(offset within the slot, floats) for the next stretches of the used parts.
  template <typename Fn>
  int64_t MoveSlice(int64_t used_floats, int64_t max_bytes, int64_t* progress, Fn fn) const;

  explicit SlotPool(const SlotShape& shape) : shape_(shape) {}

  const SlotShape shape_;
  std::unique_ptr<SlotMemory> memory_;
  std::vector<Slot> slots_;
  std::vector<int32_t> free_;   // a stack
  std::vector<int32_t> dirty_;  // a queue, short: its head is erased when done
};

}  // namespace statehouse
