#include "kernels/power_retention/layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace statehouse::kernels {
namespace {

constexpr int kMaxStateDimDegree4 = 32;  // D = 52 360; d = 64 would already need 200 MB per head
constexpr int64_t kMaxChunk = 65536;
// Rows that one sequence may hold unfolded: keeps every size below far from overflow.
constexpr int64_t kMaxRows = int64_t{1} << 40;
constexpr int kMaxHeads = 1 << 20;

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

absl::Status CheckHeads(const RetentionShape& shape) {
  if (shape.heads_kv < 1 || shape.heads_kv > kMaxHeads) {
    return absl::InvalidArgumentError(absl::StrCat("heads_kv is ", shape.heads_kv, "; it must be in 1 … ", kMaxHeads));
  }
  if (shape.heads_q < 1 || shape.heads_q > kMaxHeads || shape.heads_q % shape.heads_kv != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("heads_q is ", shape.heads_q, "; it must be a multiple of heads_kv, which is ", shape.heads_kv));
  }
  if (shape.head_dim < 1 || shape.head_dim > kMaxHeadDim) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim is ", shape.head_dim, "; it must be in 1 … ", kMaxHeadDim));
  }
  return absl::OkStatus();
}

absl::Status CheckNumbers(const RetentionShape& shape) {
  if (shape.degree != 2 && shape.degree != 4) {
    return absl::UnimplementedError(absl::StrCat("degree ", shape.degree, " is not supported; 2 and 4 are"));
  }
  if (!std::isfinite(shape.scale) || shape.scale < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("scale is ", shape.scale, "; it must be positive, or 0 for 1/sqrt(head_dim)"));
  }
  if (shape.chunk < 1 || shape.chunk > kMaxChunk) {
    return absl::InvalidArgumentError(absl::StrCat("chunk is ", shape.chunk, "; it must be in 1 … ", kMaxChunk));
  }
  return absl::OkStatus();
}

absl::Status CheckForm(const RetentionShape& shape) {
  if (shape.switch_over == kNeverSwitch) {
    if (shape.max_tail_tokens >= 1 && shape.max_tail_tokens <= kMaxRows) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("max_tail_tokens is ", shape.max_tail_tokens,
                                                   "; without a state form it bounds the rows kept and must be in 1 … ",
                                                   kMaxRows));
  }
  if (shape.degree == 4 && shape.head_dim > kMaxStateDimDegree4) {
    return absl::UnimplementedError(absl::StrCat("degree 4 with head_dim ", shape.head_dim,
                                                 " has no state form (head_dim <= ", kMaxStateDimDegree4,
                                                 " has); keep all rows instead: set --max-tail-tokens"));
  }
  if (shape.max_tail_tokens != 0) {
    return absl::InvalidArgumentError(absl::StrCat("max_tail_tokens is ", shape.max_tail_tokens,
                                                   "; it only applies without a state form and must be 0 here"));
  }
  if (shape.switch_over == kSwitchOverAuto) return absl::OkStatus();
  if (shape.switch_over < 0 || shape.switch_over > kMaxRows || shape.switch_over % shape.chunk != 0) {
    return absl::InvalidArgumentError(absl::StrCat("switch_over is ", shape.switch_over,
                                                   "; it must be 0 or a multiple of the chunk length ", shape.chunk));
  }
  return absl::OkStatus();
}

// Counted in numbers of the definition, not of this layout: the switch-over is part of a model's identity.
int64_t AutoSwitchOver(const RetentionShape& shape, int64_t expanded) {
  const int64_t state_numbers = expanded * (shape.head_dim + 1);
  const int64_t row_numbers = 2 * shape.head_dim + 1;
  return state_numbers / row_numbers / shape.chunk * shape.chunk;
}

}  // namespace

int64_t ExpandedSize(int head_dim, int degree) {
  int64_t size = 1;
  for (int i = 1; i <= degree; ++i)
    size = size * (head_dim - 1 + i) / i;  // exact: a binomial coefficient at every step
  return size;
}

absl::StatusOr<RetentionLayout> RetentionLayout::Make(const RetentionShape& shape) {
  for (const absl::Status& status : {CheckHeads(shape), CheckNumbers(shape), CheckForm(shape)}) {
    if (!status.ok()) return status;
  }
  RetentionLayout layout;
  layout.shape_ = shape;
  const int64_t C = shape.chunk;
  const int64_t d = shape.head_dim;
  if (shape.scale == 0) layout.shape_.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
  layout.expanded_ = ExpandedSize(shape.head_dim, shape.degree);
  if (shape.switch_over == kSwitchOverAuto) layout.shape_.switch_over = AutoSwitchOver(shape, layout.expanded_);

  layout.padded_dim_ = RoundUp(d, 16);
  layout.padded_chunk_ = RoundUp(C, 16);
  layout.block_v_offset_ = RoundUp(layout.padded_chunk_ * d, 32);
  layout.block_l_offset_ = layout.block_v_offset_ + RoundUp(C * layout.padded_dim_, 32);
  layout.block_floats_ = RoundUp(layout.block_l_offset_ + 2 * layout.padded_chunk_, 32);
  if (!layout.has_state()) {
    layout.max_blocks_ = (shape.max_tail_tokens + C - 1) / C;
    layout.head_floats_ = kHeaderFloats + layout.max_blocks_ * layout.block_floats_;
    return layout;
  }
  const int64_t rows_blocks = layout.shape_.switch_over / C;
  layout.max_blocks_ = std::max<int64_t>(2, rows_blocks);
  layout.normalizer_offset_ = kHeaderFloats + RoundUp(layout.expanded_ * layout.padded_dim_, 32);
  layout.ring_offset_ = layout.normalizer_offset_ + RoundUp(layout.expanded_, 32);
  layout.head_floats_ =
      std::max(layout.ring_offset_ + 2 * layout.block_floats_, kHeaderFloats + rows_blocks * layout.block_floats_);
  return layout;
}

int64_t RetentionLayout::TailStart(int64_t position) const {
  if (!InStateForm(position)) return 0;
  return shape_.chunk * std::max<int64_t>(0, position / shape_.chunk - 1);
}

int64_t RetentionLayout::UsedHeadFloats(int64_t position) const {
  if (position == 0) return 0;
  if (has_state() && position == shape_.switch_over)
    return head_floats_;  // either form: SwitchOver() may have run or not
  if (InStateForm(position)) return ring_offset_ + 2 * block_floats_;
  return kHeaderFloats + (position + shape_.chunk - 1) / shape_.chunk * block_floats_;
}

RetentionHeader RetentionLayout::ReadHeader(const float* layer, int head) const {
  RetentionHeader header;
  std::memcpy(static_cast<void*>(&header), layer + head * head_floats_, sizeof(header));
  return header;
}

void RetentionLayout::WriteHeader(float* layer, int head, const RetentionHeader& header) const {
  static_assert(sizeof(header) <= kHeaderFloats * sizeof(float));
  std::memcpy(layer + head * head_floats_, &header, sizeof(header));
}

}  // namespace statehouse::kernels
