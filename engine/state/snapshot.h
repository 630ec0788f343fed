// A sequence's whole condition at a position, copied out of its slot: all that it takes to go on from there with the
// same bits, however long the sequence was.
//
// It is made in three moves, so that the engine thread neither allocates nor frees: whoever submits a request reserves
// a SnapshotDraft, the engine fills it in slices between steps, and its owner seals it with the token ids. A Snapshot
// never changes; whoever holds the shared_ptr reads it. The regions are in the slot's own layout (kernels/
// power_retention/layout.h), which files do not use. Thread-safety: a draft is written by the engine thread until
// filled() and read by its owner after; a Snapshot is immutable.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/state/slot_pool.h"
#include "engine/state/snapshot_memory.h"

namespace statehouse {

// Where the sequence stands, beside its regions.
struct SnapshotPoint {
  int64_t position = 0;      // tokens that the state has read, >= 1
  int64_t used_floats = 0;   // of each region
  int64_t switch_units = 0;  // slices of the switch-over that have run
  bool switched = false;     // all of them have
};

class Snapshot {
 public:
  // `tokens` are the first point.position of the sequence. `regions` [num_regions, point.used_floats]; `logits` those
  // of the last token, or empty.
  Snapshot(const SlotShape& shape, const SnapshotPoint& point, SnapshotBuffer regions, std::vector<float> logits,
           std::vector<int32_t> tokens);

  // The least position that this one can be taken back to with the bits of an uninterrupted run: no fold lies between.
  int64_t exact_from() const;
  // The same sequence at an earlier position, sharing the regions: its last rows are forgotten. No copy, no logits.
  // REQUIRES: exact_from() <= position <= this->position(), position >= 1.
  std::shared_ptr<const Snapshot> TakenBackTo(int64_t position) const;

  const SlotShape& shape() const { return shape_; }
  const SnapshotPoint& point() const { return point_; }
  int64_t position() const { return point_.position; }
  const float* regions() const { return regions_->as<float>(); }
  int64_t num_region_floats() const { return point_.used_floats * shape_.num_regions(); }
  std::span<const float> logits() const { return logits_; }
  std::span<const int32_t> tokens() const { return tokens_; }
  // Memory that holds it, in bytes (regions that are shared count in full). Of a page-locked block, which has a bound
  // of its own, what is used of it.
  int64_t bytes() const;
  bool is_page_locked() const { return regions_->is_page_locked(); }

 private:
  Snapshot(const Snapshot& later, int64_t position);

  const SlotShape shape_;
  const SnapshotPoint point_;
  const std::shared_ptr<const SnapshotBuffer> regions_;
  const std::vector<float> logits_;
  const std::vector<int32_t> tokens_;
};

class SnapshotDraft {
 public:
  // Room for any position. Where `memory` (may be null) has no block for what the sequence is to hold at
  // `position`, in ordinary memory: pages that are never written take none. RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::shared_ptr<SnapshotDraft>> Reserve(const SlotShape& shape, int64_t vocab_size,
                                                                SnapshotMemory* memory = nullptr, int64_t position = 0);

  // --- engine thread, in this order ---
  void Begin(const SnapshotPoint& point) { point_ = point; }
  float* regions() { return regions_.as<float>(); }
  void SetLogits(std::span<const float> logits);  // optional
  void MarkFilled() { filled_.store(true, std::memory_order_release); }

  // --- owner ---
  bool filled() const { return filled_.load(std::memory_order_acquire); }
  const SlotShape& shape() const { return shape_; }
  // REQUIRES: filled(), and the sequence's tokens as far as the point's position or further. The draft is empty after.
  std::shared_ptr<const Snapshot> Seal(std::vector<int32_t> tokens);
  int64_t position() const { return point_.position; }

 private:
  explicit SnapshotDraft(const SlotShape& shape) : shape_(shape) {}

  const SlotShape shape_;
  SnapshotPoint point_;
  SnapshotBuffer regions_;
  std::vector<float> logits_;
  bool has_logits_ = false;
  std::atomic<bool> filled_{false};
};

}  // namespace statehouse
