#include "kernels/power_retention/cuda/slot_retention.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/power_retention/cuda/instances.h"
#include "kernels/power_retention/cuda/slot_args.cuh"
#include "kernels/power_retention/cuda/slot_bulk.h"

namespace statehouse::kernels {
namespace {

// Room for partial sums: larger waves are answered in several rounds.
constexpr int64_t kPartBytes = int64_t{192} << 20;
// Heads of tiles that one launch of AnswerRow takes.
constexpr int64_t kMostRowHeads = 8192;

}  // namespace

absl::Status SlotRetention::CheckSupport(const RetentionLayout& layout) {
  const RetentionShape& shape = layout.shape();
  const int d = shape.head_dim;
  if (d != 16 && d != 32 && d != 64 && d != 128) {
    return absl::UnimplementedError(
        absl::StrCat("power retention on the GPU: head_dim ", d, "; 16, 32, 64 and 128 have kernels"));
  }
  if (shape.degree != 2 && layout.has_state()) {
    return absl::UnimplementedError(absl::StrCat("power retention on the GPU: degree ", shape.degree,
                                                 " in state form; set --switch-over never and --max-tail-tokens"));
  }
  return absl::OkStatus();
}

bool HasWideKernel(const RetentionLayout& layout) {
  const RetentionShape& shape = layout.shape();
  return (shape.head_dim == 64 || shape.head_dim == 128) && shape.degree == 2 && shape.chunk % 64 == 0;
}

bool HasRowKernel(const RetentionLayout& layout) {
  const RetentionShape& shape = layout.shape();
  return (shape.head_dim == 64 || shape.head_dim == 128) && layout.group() <= 16 && shape.heads_kv <= kMostRowHeads;
}

bool HasBulkForward(const RetentionLayout& layout, SlotRetentionMode mode) {
  const RetentionShape& shape = layout.shape();
  return mode == SlotRetentionMode::kFastBf16 && HasWideKernel(layout) && layout.has_state() &&
         2 * shape.chunk <= SlotBulkForward::kChunk &&  // open rows are at most a chunk of it
         HasForwardInstance({.heads_q = shape.heads_q, .heads_kv = shape.heads_kv, .head_dim = shape.head_dim});
}

SlotRetention::SlotRetention(const RetentionLayout& layout) : layout_(layout) {}
SlotRetention::~SlotRetention() = default;
SlotRetention::SlotRetention(SlotRetention&& other) noexcept = default;

int64_t SlotRetention::bytes() const {
  return static_cast<int64_t>(pairs_.bytes() + blocks_.bytes() + wide_state_.bytes() + numerators_.bytes() +
                              denominators_.bytes() + arrivals_.bytes() + staging_.bytes()) +
         (bulk_ == nullptr ? 0 : bulk_->bytes());
}

int64_t SlotRetention::BytesFor(int64_t max_rows) const {
  return bulk_ == nullptr ? 0 : SlotBulkForward::BytesFor(layout_, max_rows);
}

absl::Status SlotRetention::Reserve(int64_t max_rows) {
  return bulk_ == nullptr ? absl::OkStatus() : bulk_->Reserve(max_rows);
}

// Blocks of one i and 16 neighbouring j, by i: for each the row of S that holds (i, j), and 256 i + j / 16.
absl::Status SlotRetention::MakeWideTables() {
  const RetentionShape& shape = layout_.shape();
  std::vector<int2> blocks;
  for (int i = 0; i < shape.head_dim; ++i) {
    for (int block = i / 16; block < shape.head_dim / 16; ++block) {
      const int row = i * shape.head_dim - i * (i - 1) / 2 + block * 16 - i;
      blocks.push_back({row, 256 * i + block});
    }
  }
  if (absl::Status status = blocks_.Allocate(blocks.size() * sizeof(int2)); !status.ok()) return status;
  if (absl::Status status = blocks_.Upload(blocks.data(), blocks.size() * sizeof(int2)); !status.ok()) return status;
  return wide_state_.Allocate(int64_t{kMostWideSegments} * shape.heads_kv * layout_.expanded() * (shape.head_dim + 8) *
                              2);
}

absl::StatusOr<SlotRetention> SlotRetention::Make(const RetentionLayout& layout, SlotRetentionMode mode) {
  if (absl::Status status = CheckSupport(layout); !status.ok()) return status;
  SlotRetention made(layout);
  const RetentionShape& shape = layout.shape();
  // At least one tile, with the most parts that a sequence can have.
  constexpr int64_t kTileQueries = 256, kStateParts = 16, kLeastPartRows = 256;
  const int64_t most_rows = layout.has_state() ? std::max(shape.switch_over, 2 * shape.chunk) : shape.max_tail_tokens;
  const int64_t parts = kStateParts + most_rows / kLeastPartRows + 2;
  const int64_t queries = std::max(kPartBytes / (shape.head_dim * 4), int64_t{shape.heads_kv} * parts * kTileQueries);
  for (const absl::Status& status : {made.numerators_.Allocate(queries * shape.head_dim * sizeof(float)),
                                     made.denominators_.Allocate(queries * sizeof(float))}) {
    if (!status.ok()) return status;
  }
  if (mode == SlotRetentionMode::kFastBf16 && HasRowKernel(layout)) {
    const std::vector<uint32_t> zeros(2 * kMostRowHeads);
    for (const absl::Status& status : {made.arrivals_.Allocate(zeros.size() * sizeof(uint32_t)),
                                       made.arrivals_.Upload(zeros.data(), zeros.size() * sizeof(uint32_t))}) {
      if (!status.ok()) return status;
    }
  }
  if (!layout.has_state()) return made;
  std::vector<uchar2> pairs;
  for (int i = 0; i < shape.head_dim; ++i) {
    for (int j = i; j < shape.head_dim; ++j) {
      pairs.push_back({static_cast<unsigned char>(i), static_cast<unsigned char>(j)});
    }
  }
  const size_t staged =
      RetentionLayout::kHeaderFloats + shape.switch_over / shape.chunk * static_cast<size_t>(layout.block_floats());
  for (const absl::Status& status : {made.pairs_.Allocate(pairs.size() * sizeof(uchar2)),
                                     made.pairs_.Upload(pairs.data(), pairs.size() * sizeof(uchar2)),
                                     made.staging_.Allocate(staged * sizeof(float))}) {
    if (!status.ok()) return status;
  }
  if (HasBulkForward(layout, mode)) made.bulk_ = std::make_unique<SlotBulkForward>(layout);
  if (mode == SlotRetentionMode::kFastBf16 && HasWideKernel(layout)) {
    if (absl::Status status = made.MakeWideTables(); !status.ok()) return status;
  }
  return made;
}

absl::Status SlotRetention::Run(const SlotRetentionPlan& plan, const SlotRetentionArgs& args, cudaStream_t stream) {
  if (args.heads.angles != nullptr && !plan.takes_raw_heads()) {
    return absl::InternalError("power retention: raw heads in a step that does not take them");
  }
  if (!plan.bulks().empty() && bulk_ == nullptr) {
    return absl::InternalError("power retention: a bulk of a mode that this one is not");
  }
  for (const SlotBulk& bulk : plan.bulks()) {
    if (!args.y_is_bf16) return absl::InternalError("power retention: a bulk whose answers are not bf16");
    if (absl::Status status = bulk_->Run(bulk, KernelArgs(args), stream); !status.ok()) return status;
  }
  for (const SlotWave& wave : plan.waves()) {
    const bool alone = plan.bulks().empty() && plan.waves().size() == 1;
    if (absl::Status status = AnswerWave(wave, args, alone, stream); !status.ok()) return status;
  }
  return absl::OkStatus();
}

SlotKernelArgs SlotRetention::KernelArgs(const SlotRetentionArgs& args) const {
  return {.view = SlotView::Of(layout_),
          .q = args.q,
          .k = args.k,
          .v = args.v,
          .log_g = args.log_g,
          .row_stride = args.row_stride,
          .y = args.y,
          .y_is_bf16 = args.y_is_bf16,
          .layer_idx = args.layer_idx,
          .segments = args.segments,
          .tiles = args.tiles,
          .folds = args.folds,
          .first_segment = 0,
          .pairs = pairs_.as<uchar2>(),
          .blocks = blocks_.as<int2>(),
          .wide_state = wide_state_.as<void>(),
          .wide_rows = layout_.expanded(),
          .numerators = numerators_.as<float>(),
          .denominators = denominators_.as<float>(),
          .state_parts = 0,
          .tail_parts = 0,
          .part_rows = 0,
          .heads = args.heads,
          .arrivals = arrivals_.as<uint32_t>()};
}

absl::Status SlotRetention::AnswerWave(const SlotWave& wave, const SlotRetentionArgs& args, bool alone,
                                       cudaStream_t stream) {
  const RetentionShape& shape = layout_.shape();
  const int d = shape.head_dim;
  SlotKernelArgs kernel = KernelArgs(args);
  kernel.segments += wave.first_segment;
  kernel.tiles += wave.first_tile;
  kernel.folds += wave.first_fold;
  kernel.first_segment = wave.first_segment;
  kernel.state_parts = wave.state_parts;
  kernel.tail_parts = wave.tail_parts;
  kernel.part_rows = wave.part_rows;
  if (wave.num_folds > 0) {
    const absl::Status status = blocks_.bytes() > 0 ? LaunchSlotFoldWide(kernel, d, wave.num_folds, stream)
                                                    : LaunchSlotFold(kernel, d, wave.num_folds, stream);
    if (!status.ok()) return status;
  }
  // Behind a fold it waits: the next kernel reads what is folded before it waits itself.
  const bool overlaps = wave.num_folds == 0;
  if (wave.row) return AnswerRows(wave, kernel, overlaps && alone, stream);
  if (absl::Status status = LaunchSlotAppend(kernel, d, wave.num_segments, overlaps, stream); !status.ok())
    return status;
  if (wave.wide && layout_.has_state()) {
    if (absl::Status status = LaunchSlotWiden(kernel, d, wave.num_segments, stream); !status.ok()) return status;
  }
  const int64_t per_tile = int64_t{shape.heads_kv} * (wave.state_parts + wave.tail_parts) * wave.tile_queries * d * 4;
  const int64_t capacity = static_cast<int64_t>(numerators_.bytes()) / per_tile;
  if (capacity < 1) return absl::InternalError("power retention: one tile's parts do not fit its working memory");
  const int64_t most = std::min<int64_t>(capacity, 65535);  // of one launch
  for (int64_t first = 0; first < wave.num_tiles; first += most) {
    const int count = static_cast<int>(std::min<int64_t>(most, wave.num_tiles - first));
    SlotKernelArgs round = kernel;
    round.tiles += first;
    if (absl::Status status = AnswerTiles(wave, round, count, stream); !status.ok()) return status;
    const absl::Status status = LaunchSlotCombine(round, d, wave.tile_queries, count, wave.few, stream);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// It reads the tail before it waits, so it may overlap only where no kernel before it writes there.
absl::Status SlotRetention::AnswerRows(const SlotWave& wave, const SlotKernelArgs& args, bool overlaps,
                                       cudaStream_t stream) {
  if (arrivals_.bytes() == 0) {
    return absl::InternalError("power retention: single rows of a mode that this one is not");
  }
  const RetentionShape& shape = layout_.shape();
  const int64_t per_tile = int64_t{shape.heads_kv} * wave.state_parts * wave.tile_queries * shape.head_dim * 4;
  const int64_t most =
      std::min(static_cast<int64_t>(numerators_.bytes()) / per_tile, kMostRowHeads / int64_t{shape.heads_kv});
  if (most < 1) return absl::InternalError("power retention: one tile's parts do not fit its working memory");
  for (int64_t first = 0; first < wave.num_tiles; first += most) {
    SlotKernelArgs round = args;
    round.segments += first;  // one tile each
    const int count = static_cast<int>(std::min<int64_t>(most, wave.num_tiles - first));
    const absl::Status status = LaunchSlotAnswerRow(round, shape.head_dim, count, wave.meets, overlaps, stream);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status SlotRetention::AnswerTiles(const SlotWave& wave, const SlotKernelArgs& args, int num_tiles,
                                        cudaStream_t stream) {
  const int d = layout_.shape().head_dim;
  if (wave.few) return LaunchSlotAnswerFew(args, d, wave.tile_queries, num_tiles, stream);
  if (wave.wide) return LaunchSlotAnswerWide(args, d, num_tiles, stream);
  return LaunchSlotAnswer(args, d, wave.tile_queries, num_tiles, stream);
}

absl::Status SlotRetention::SwitchOver(float* layer_memory, int head, cudaStream_t stream) {
  const RetentionShape& shape = layout_.shape();
  const int64_t num_blocks = layout_.has_state() ? shape.switch_over / shape.chunk : 0;
  if (num_blocks == 0) return absl::OkStatus();
  const SlotSwitchArgs args = {.view = SlotView::Of(layout_),
                               .region = layer_memory + head * layout_.head_floats(),
                               .staging = staging_.as<float>(),
                               .pairs = pairs_.as<uchar2>(),
                               .num_blocks = static_cast<int32_t>(num_blocks)};
  return LaunchSlotSwitchOver(args, shape.head_dim, stream);
}

}  // namespace statehouse::kernels
