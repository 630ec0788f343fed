// SlotRetentionPlan: cuts a step into waves of one chunk per sequence, waves into tiles of queries, sums into parts.
#include <algorithm>
#include <bit>

#include "kernels/power_retention/cuda/slot_retention.h"

namespace statehouse::kernels {
namespace {

constexpr int kFewQueries = 16;
constexpr int kPlainTile = 64;
constexpr int kWideTile = 256;
constexpr int kGroup = 32;  // monomials that are never parted
// Fewer rows of a sequence are not worth what moving the state costs.
constexpr int64_t kLeastBulkRows = 512;
constexpr int64_t kLeastBulkChunks = 4;
// Below the switch-over all rows before go through it again: worth it while they are not many more than the new ones.
constexpr int64_t kMostOldRows = 2;  // per new row

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The narrowest tile of the kernel for few queries that holds them.
int32_t FewTile(int64_t queries, int head_dim) {
  if (queries <= 8) return 8;
  return queries <= 12 && head_dim == 128 ? 12 : kFewQueries;
}

// About `wanted` rows, so that parts begin where a chunk does or on a multiple of 32 within one.
int64_t PartRows(int64_t chunk, int64_t wanted) {
  if (chunk < wanted) return wanted / chunk * chunk;
  return chunk % wanted == 0 ? wanted : chunk;
}

}  // namespace

absl::Status SlotRetentionPlan::Reserve(const RetentionLayout& layout, int64_t max_rows, SlotRetentionMode mode,
                                        int num_multiprocessors) {
  const RetentionShape& shape = layout.shape();
  chunk_ = shape.chunk;
  switch_over_ = layout.has_state() ? shape.switch_over : INT64_MAX;
  expanded_ = layout.has_state() ? layout.expanded() : 0;
  group_ = layout.group();
  heads_kv_ = shape.heads_kv;
  head_dim_ = shape.head_dim;
  has_bulks_ = HasBulkForward(layout, mode);
  has_row_ = mode == SlotRetentionMode::kFastBf16 && HasRowKernel(layout);
  has_wide_ = mode == SlotRetentionMode::kFastBf16 && HasWideKernel(layout);
  mode_ = mode;
  num_multiprocessors_ = num_multiprocessors;
  max_segments_ = max_rows;
  max_tiles_ = max_rows * DivideUp(group_, kFewQueries);
  left_.reserve(max_rows);
  segments_.reserve(max_segments_);
  tiles_.reserve(max_tiles_);
  folds_.reserve(max_folds());
  waves_.reserve(max_rows);
  bulks_.reserve(max_rows / kLeastBulkRows + 1);
  return absl::OkStatus();
}

void SlotRetentionPlan::Make(std::span<const SlotRows> sequences) {
  segments_.clear();
  tiles_.clear();
  folds_.clear();
  waves_.clear();
  bulks_.clear();
  left_.clear();
  for (const SlotRows& rows : sequences) {
    if (IsBulk(rows)) {
      AddBulk(rows);
    } else {
      left_.push_back(rows);
    }
  }
  while (!left_.empty()) {
    SlotWave wave;
    wave.first_segment = static_cast<int32_t>(segments_.size());
    wave.first_fold = static_cast<int32_t>(folds_.size());
    size_t kept = 0;
    for (SlotRows rows : left_) {
      const int64_t within = rows.position % chunk_;
      const int32_t taken = static_cast<int32_t>(std::min<int64_t>(rows.num_rows, chunk_ - within));
      segments_.push_back({rows.memory, rows.position, rows.first_row, taken});
      // A fold is due before the first row of a chunk, if at all.
      if (within == 0 && rows.position >= std::max(switch_over_, 2 * chunk_)) {
        folds_.push_back(static_cast<int32_t>(segments_.size()) - 1);
      }
      wave.max_rows = std::max(wave.max_rows, taken);
      rows.position += taken;
      rows.first_row += taken;
      rows.num_rows -= taken;
      if (rows.num_rows > 0) left_[kept++] = rows;
    }
    left_.resize(kept);
    wave.num_segments = static_cast<int32_t>(segments_.size()) - wave.first_segment;
    // Rounded up where launches are recorded and replayed.
    if (wave.max_rows == 1) {
      const size_t folds = folds_.size() - wave.first_fold;
      folds_.resize(wave.first_fold + (folds == 0 ? 0 : std::bit_ceil(folds)), -1);
    }
    wave.num_folds = static_cast<int32_t>(folds_.size()) - wave.first_fold;
    AddTiles(&wave);
    ChooseParts(&wave);
    waves_.push_back(wave);
  }
}

bool SlotRetentionPlan::IsBulk(const SlotRows& rows) const {
  return has_bulks_ && rows.num_rows >= std::max(kLeastBulkRows, kLeastBulkChunks * chunk_) &&
         (rows.position >= switch_over_ || rows.position <= kMostOldRows * rows.num_rows);
}

// The state covers whole chunks before and after; what it does not cover yet goes through the forward pass again.
void SlotRetentionPlan::AddBulk(const SlotRows& rows) {
  SlotBulk bulk;
  bulk.rows = rows;
  bulk.holds_state = rows.position >= switch_over_;
  bulk.first_segment = static_cast<int32_t>(segments_.size());
  const int64_t end = rows.position + rows.num_rows;
  int64_t kept = rows.position;  // the first row that the slot keeps
  if (bulk.holds_state) {
    bulk.first_position = chunk_ * std::max<int64_t>(0, DivideUp(rows.position, chunk_) - 2);
    kept = chunk_ * ((end - 1) / chunk_ - 1);
    bulk.open_rows = end - kept;
  }
  while (kept < end) {
    const int64_t taken = std::min(chunk_ - kept % chunk_, end - kept);
    segments_.push_back(
        {rows.memory, kept, rows.first_row + static_cast<int32_t>(kept - rows.position), static_cast<int32_t>(taken)});
    kept += taken;
  }
  bulk.num_segments = static_cast<int32_t>(segments_.size()) - bulk.first_segment;
  bulks_.push_back(bulk);
}

void SlotRetentionPlan::AddTiles(SlotWave* wave) {
  const int64_t most = int64_t{wave->max_rows} * group_;
  const bool narrow = most <= kFewQueries;
  wave->few = narrow && mode_ != SlotRetentionMode::kDeterministic;
  wave->wide = has_wide_ && most > kPlainTile && wave->num_segments <= kMostWideSegments;
  wave->tile_queries = narrow ? kFewQueries : wave->wide ? kWideTile : kPlainTile;
  wave->row = has_row_ && wave->max_rows == 1;
  if (wave->few && !wave->row) wave->tile_queries = FewTile(most, head_dim_);
  wave->first_tile = static_cast<int32_t>(tiles_.size());
  for (int32_t segment = wave->first_segment; segment < wave->first_segment + wave->num_segments; ++segment) {
    const int64_t queries = int64_t{segments_[segment].num_rows} * group_;
    for (int64_t first = 0; first < queries; first += wave->tile_queries) {
      tiles_.push_back({segment, static_cast<int32_t>(first)});
    }
  }
  wave->num_tiles = static_cast<int32_t>(tiles_.size()) - wave->first_tile;
}

// Few sequences: a block on each multiprocessor, which may then wait for each other and leave room for the weights of
// the product that follows. More: as many blocks as run at once, so that much is asked for while the product before
// still runs. Many: no more parts than it takes to give all multiprocessors about the same.
void SlotRetentionPlan::ChooseRowParts(SlotWave* wave) const {
  constexpr int64_t kMostParts = 16;
  const int64_t pairs = int64_t{wave->num_tiles} * heads_kv_, all = num_multiprocessors_;
  wave->part_rows = static_cast<int32_t>(chunk_);
  wave->tail_parts = 0;
  wave->meets = all / pairs > kMostParts;
  int64_t parts = 1;
  if (wave->meets) {
    parts = std::min<int64_t>(all / pairs, 255);  // a lane of a warp adds those of a stretch
  } else if (2 * pairs <= all) {
    parts = 2 * all / pairs;
  } else {
    // Rounds of blocks, each of 1 / parts of a head's work, must be clearly fewer to be worth more parts.
    int64_t rounds = DivideUp(pairs, all);
    for (int64_t more = 2; more <= kMostParts / 2; ++more) {
      const int64_t needed = DivideUp(pairs * more, all);
      if (needed * parts * 100 < rounds * more * 95) parts = more, rounds = needed;
    }
  }
  wave->state_parts = static_cast<int32_t>(parts);
}

// How the sums of a wave's queries are divided: first the tail, then the state.
void SlotRetentionPlan::ChooseParts(SlotWave* wave) const {
  if (wave->row) return ChooseRowParts(wave);
  wave->part_rows = static_cast<int32_t>(PartRows(chunk_, wave->few ? 64 : wave->wide ? 256 : 512));
  int64_t most = 1;
  for (int32_t i = wave->first_segment; i < wave->first_segment + wave->num_segments; ++i) {
    const SlotSegment& segment = segments_[i];
    const bool state_form = segment.position >= switch_over_;
    const int64_t first = state_form ? std::max<int64_t>(0, segment.position / chunk_ - 1) * chunk_ : 0;
    const int64_t last = segment.position + segment.num_rows - 1;
    most = std::max(most, last / wave->part_rows - first / wave->part_rows + 1);
  }
  // Rounded up where launches are recorded and replayed.
  wave->tail_parts = static_cast<int32_t>(wave->few ? std::bit_ceil(static_cast<uint64_t>(most)) : most);

  constexpr int64_t kWideParts = 16;
  const int64_t groups = DivideUp(expanded_, kGroup);
  const int64_t pairs = int64_t{wave->num_tiles} * heads_kv_;
  const int64_t wanted = DivideUp(int64_t{4} * num_multiprocessors_, pairs);
  int64_t parts = std::min({kWideParts, groups, wanted});
  if (mode_ == SlotRetentionMode::kDeterministic) {
    parts = std::min(kWideParts, groups);
  } else if (wave->few) {
    parts = std::min(std::max<int64_t>(1, groups / 4), wanted);
  } else if (wave->wide) {
    // A block of the kernel on tensor cores fills a multiprocessor: no last round that is almost empty.
    parts = std::clamp<int64_t>(num_multiprocessors_ / pairs - wave->tail_parts, 1, kWideParts);
  }
  wave->state_parts = static_cast<int32_t>(groups == 0 ? 0 : parts);
}

}  // namespace statehouse::kernels
