#include "engine/state/slot_pool.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/state/host_memory.h"

namespace statehouse {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

// Walks over `count` floats from `start`, both counted over the used parts of all regions, as contiguous stretches:
// fn(offset within the slot, number of floats). Where regions are used as a whole there is one.
template <typename Fn>
void ForEachStretch(int64_t used_floats, int64_t region_floats, int64_t start, int64_t count, Fn& fn) {
  const bool is_whole = used_floats == region_floats;
  while (count > 0) {
    const int64_t region = start / used_floats;
    const int64_t within = start % used_floats;
    const int64_t stretch = is_whole ? count : std::min(count, used_floats - within);
    fn(region * region_floats + within, stretch);
    start += stretch;
    count -= stretch;
  }
}

}  // namespace

bool SlotShape::SameAs(const SlotShape& other) const {
  const kernels::RetentionShape& a = layout.shape();
  const kernels::RetentionShape& b = other.layout.shape();
  return num_layers == other.num_layers && a.heads_q == b.heads_q && a.heads_kv == b.heads_kv &&
         a.head_dim == b.head_dim && a.degree == b.degree && a.scale == b.scale && a.chunk == b.chunk &&
         a.switch_over == b.switch_over && a.max_tail_tokens == b.max_tail_tokens;
}

absl::StatusOr<std::unique_ptr<SlotPool>> SlotPool::Create(const SlotShape& shape, int64_t num_slots, Model* model) {
  std::unique_ptr<SlotPool> pool(new SlotPool(shape));
  const auto shortage = [&](const std::string& available) {
    return absl::ResourceExhaustedError(
        absl::StrCat("state memory: ", num_slots, " slots of ", shape.bytes(), " bytes need ",
                     static_cast<double>(num_slots) * static_cast<double>(shape.bytes()), " bytes, and the host has ",
                     available, "; lower --max-num-seqs or --state-memory"));
  };
  // Pages are given on first use, so the promise is checked here and not by the allocation.
  const bool on_host = model == nullptr || model->device() == "cpu";
  const std::optional<int64_t> available = on_host ? AvailableHostBytes() : std::nullopt;
  if (available.has_value() && num_slots > *available / shape.bytes()) {
    return shortage(absl::StrCat(*available, " bytes available"));
  }
  auto memory =
      model == nullptr ? AllocateHostSlots(shape.bytes(), num_slots) : model->AllocateSlots(shape.bytes(), num_slots);
  if (!memory.ok()) {
    return on_host && absl::IsResourceExhausted(memory.status()) ? shortage("too few") : memory.status();
  }
  pool->memory_ = *std::move(memory);
  pool->slots_.resize(num_slots);
  pool->dirty_.reserve(num_slots);
  pool->free_.reserve(num_slots);
  // Slot 0 comes first off the stack.
  for (int64_t slot = num_slots - 1; slot >= 0; --slot) pool->free_.push_back(static_cast<int32_t>(slot));
  return pool;
}

int32_t SlotPool::Take() {
  const int32_t slot = free_.back();
  free_.pop_back();
  slots_[slot] = Slot{};
  return slot;
}

void SlotPool::NoteUse(int32_t slot, int64_t position) {
  slots_[slot].used_floats = std::max(slots_[slot].used_floats, shape_.layout.UsedHeadFloats(position));
}

void SlotPool::NoteFullUse(int32_t slot) { slots_[slot].used_floats = shape_.region_floats(); }

void SlotPool::Release(int32_t slot) {
  if (slots_[slot].used_floats == 0) {
    free_.push_back(slot);
  } else {
    dirty_.push_back(slot);
  }
}

int64_t SlotPool::ZeroSlice(int64_t max_bytes) {
  int64_t left = max_bytes / kFloatBytes;
  size_t done = 0;
  while (done < dirty_.size() && left > 0) {
    Slot& slot = slots_[dirty_[done]];
    float* const base = memory(dirty_[done]);
    const int64_t all = slot.used_floats * shape_.num_regions();
    const int64_t count = std::min(left, all - slot.zeroed);
    const auto zero = [this, base](int64_t offset, int64_t floats) { memory_->Zero(base + offset, floats); };
    ForEachStretch(slot.used_floats, shape_.region_floats(), slot.zeroed, count, zero);
    slot.zeroed += count;
    left -= count;
    if (slot.zeroed < all) break;
    free_.push_back(dirty_[done++]);
  }
  dirty_.erase(dirty_.begin(), dirty_.begin() + static_cast<int64_t>(done));
  return max_bytes / kFloatBytes * kFloatBytes - left * kFloatBytes;
}

template <typename Fn>
int64_t SlotPool::MoveSlice(int64_t used_floats, int64_t max_bytes, int64_t* progress, Fn fn) const {
  const int64_t all = used_floats * shape_.num_regions();
  const int64_t count = std::min(std::max<int64_t>(1, max_bytes / kFloatBytes), all - *progress);
  ForEachStretch(used_floats, shape_.region_floats(), *progress, count, fn);
  *progress = *progress + count == all ? kCopied : *progress + count;
  return count * kFloatBytes;
}

int64_t SlotPool::SaveSlice(int32_t slot, float* to, int64_t max_bytes, int64_t* progress) {
  const float* const source = memory(slot);
  return MoveSlice(slots_[slot].used_floats, max_bytes, progress,
                   [this, source, to, start = *progress](int64_t offset, int64_t floats) mutable {
                     memory_->Read(source + offset, to + start, floats);
                     start += floats;
                   });
}

int64_t SlotPool::RestoreSlice(const float* from, int64_t used_floats, int32_t slot, int64_t max_bytes,
                               int64_t* progress) {
  slots_[slot].used_floats = std::max(slots_[slot].used_floats, used_floats);
  float* const target = memory(slot);
  return MoveSlice(used_floats, max_bytes, progress,
                   [this, from, target, start = *progress](int64_t offset, int64_t floats) mutable {
                     memory_->Write(from + start, target + offset, floats);
                     start += floats;
                   });
}

int64_t SlotPool::CopySlice(int32_t from, int32_t to, int64_t position, int64_t max_bytes, int64_t* progress) {
  NoteUse(to, position);
  const int64_t used = shape_.layout.UsedHeadFloats(position);
  const float* const source = memory(from);
  float* const target = memory(to);
  return MoveSlice(used, max_bytes, progress, [this, source, target](int64_t offset, int64_t floats) {
    memory_->Copy(source + offset, target + offset, floats);
  });
}

}  // namespace statehouse
