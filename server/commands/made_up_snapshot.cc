#include "server/commands/made_up_snapshot.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace statehouse {

absl::StatusOr<std::shared_ptr<const Snapshot>> MadeUpSnapshot(const SlotShape& shape, int64_t vocab_size,
                                                               int64_t position) {
  const kernels::RetentionLayout& layout = shape.layout;
  const int64_t chunk = layout.shape().chunk;
  const bool in_state_form = layout.InStateForm(position);
  SnapshotPoint point = {.position = position, .used_floats = layout.UsedHeadFloats(position)};
  point.switched = layout.has_switch_over() && in_state_form;
  // A sequence that has switched over once held rows where now there is room: a slot copies that, too.
  if (point.switched) point.used_floats = shape.region_floats();
  point.switch_units = point.switched ? shape.num_regions() : 0;
  kernels::AlignedBuffer regions;
  if (!regions.Allocate(point.used_floats * shape.num_regions() * static_cast<int64_t>(sizeof(float)))) {
    return absl::ResourceExhaustedError(absl::StrCat("too little memory for a state of ", shape.bytes(), " bytes"));
  }
  float* const numbers = regions.as<float>();
  // Positive, of the usual sizes, and hardly two alike beside each other.
  for (int64_t idx = 0; idx < point.used_floats * shape.num_regions(); ++idx) {
    numbers[idx] = static_cast<float>(idx * 7919 % 65521) * 0x1p-14F;
  }
  kernels::RetentionHeader header;
  if (in_state_form) header.folded_chunks = std::max<int64_t>(0, position / chunk - 1);
  if (point.switched) header.in_state_form = 1;
  for (int64_t region = 0; region < shape.num_regions(); ++region) {
    float* const begin = numbers + region * point.used_floats;
    std::fill(begin, begin + kernels::RetentionLayout::kHeaderFloats, 0.0F);
    layout.WriteHeader(begin, 0, header);
  }
  std::vector<int32_t> tokens(static_cast<size_t>(position));
  for (size_t idx = 0; idx < tokens.size(); ++idx) {
    tokens[idx] = static_cast<int32_t>(static_cast<int64_t>(idx) * 7919 % vocab_size);
  }
  std::vector<float> logits(static_cast<size_t>(vocab_size), 0.5F);
  return std::make_shared<const Snapshot>(shape, point, std::move(regions), std::move(logits), std::move(tokens));
}

}  // namespace statehouse
