#include "engine/state/snapshot.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

// What a slot is used of at `position`: all of it once it has changed its form.
int64_t ExpectedBytes(const SlotShape& shape, int64_t position) {
  const kernels::RetentionLayout& layout = shape.layout;
  const bool has_switched = layout.has_switch_over() && position >= layout.shape().switch_over;
  const int64_t floats = has_switched ? shape.region_floats() : layout.UsedHeadFloats(position);
  return std::min(floats, shape.region_floats()) * shape.num_regions() * static_cast<int64_t>(sizeof(float));
}

}  // namespace

Snapshot::Snapshot(const SlotShape& shape, const SnapshotPoint& point, SnapshotBuffer regions,
                   std::vector<float> logits, std::vector<int32_t> tokens)
    : shape_(shape),
      point_(point),
      regions_(std::make_shared<const SnapshotBuffer>(std::move(regions))),
      logits_(std::move(logits)),
      tokens_(std::move(tokens)) {}

Snapshot::Snapshot(const Snapshot& later, int64_t position)
    : shape_(later.shape_),
      point_({.position = position,
              .used_floats = later.point_.used_floats,
              .switch_units = later.point_.switch_units,
              .switched = later.point_.switched}),
      regions_(later.regions_),
      tokens_(later.tokens_.begin(), later.tokens_.begin() + position) {}

int64_t Snapshot::exact_from() const {
  // Rows form forgets rows freely. In state form the fold that the last row's chunk asked for has been made.
  const bool state_form = shape_.layout.has_state() && (point_.switched || shape_.layout.shape().switch_over == 0);
  if (!state_form) return 1;
  const int64_t chunk = shape_.layout.shape().chunk;
  const int64_t of_last_row = (point_.position - 1) / chunk * chunk;
  return std::max<int64_t>({1, of_last_row, point_.switched ? shape_.layout.shape().switch_over : 0});
}

std::shared_ptr<const Snapshot> Snapshot::TakenBackTo(int64_t position) const {
  return std::shared_ptr<const Snapshot>(new Snapshot(*this, position));
}

int64_t Snapshot::bytes() const {
  return static_cast<int64_t>(sizeof(float)) * (num_region_floats() + static_cast<int64_t>(logits_.size())) +
         static_cast<int64_t>(sizeof(int32_t) * tokens_.size());
}

absl::StatusOr<std::shared_ptr<SnapshotDraft>> SnapshotDraft::Reserve(const SlotShape& shape, int64_t vocab_size,
                                                                      SnapshotMemory* memory, int64_t position) {
  std::shared_ptr<SnapshotDraft> draft(new SnapshotDraft(shape));
  if (memory != nullptr && !memory->Suits(ExpectedBytes(shape, position))) memory = nullptr;
  draft->regions_ = SnapshotMemory::TakeFrom(memory, shape.bytes(), SnapshotMemory::Contents::kUndefined);
  if (draft->regions_.empty()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a snapshot needs up to ", shape.bytes(), " bytes, and the host has too few; free some sessions"));
  }
  draft->logits_.resize(vocab_size);
  return draft;
}

void SnapshotDraft::SetLogits(std::span<const float> logits) {
  std::copy(logits.begin(), logits.end(), logits_.begin());
  has_logits_ = true;
}

std::shared_ptr<const Snapshot> SnapshotDraft::Seal(std::vector<int32_t> tokens) {
  tokens.resize(static_cast<size_t>(point_.position));
  tokens.shrink_to_fit();
  if (!has_logits_) logits_.clear();
  logits_.shrink_to_fit();
  // The draft had room for any position, and in huge pages at that: what is counted is what stays.
  regions_.Shrink(static_cast<int64_t>(sizeof(float)) * point_.used_floats * shape_.num_regions());
  return std::make_shared<const Snapshot>(shape_, point_, std::move(regions_), std::move(logits_), std::move(tokens));
}

}  // namespace statehouse
