// Cuts a call into waves of one chunk per sequence, because a chunk's fold must be done before its rows are answered;
// and each wave into tasks that split outputs: folds by monomials, answers by heads, tiles of queries and panels of
// columns.
#include "kernels/power_retention/power_retention.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/power_retention/tasks.h"

namespace statehouse::kernels {
namespace {

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t value, int64_t multiple) { return DivideUp(value, multiple) * multiple; }

// One wave's segments, in scratch.
using Segments = std::vector<RetentionScratch::Segment>;

int64_t ChunkOf(const RetentionLayout& layout, const RetentionScratch::Segment& segment) {
  return (segment.rows->position + segment.first_row) / layout.shape().chunk;
}

// Moves each segment to its sequence's next rows within one chunk; sequences that are done leave.
void NextWave(const RetentionLayout& layout, Segments& segments) {
  const int64_t C = layout.shape().chunk;
  size_t kept = 0;
  for (RetentionScratch::Segment segment : segments) {
    segment.first_row += segment.num_rows;
    const int64_t left = segment.rows->num_rows - segment.first_row;
    if (left <= 0) continue;
    segment.num_rows = std::min(left, C - (segment.rows->position + segment.first_row) % C);
    segments[kept++] = segment;
  }
  segments.resize(kept);
}

// The chunk that a head must fold before it takes rows of chunk `chunk`, or -1.
int64_t ChunkToFold(const RetentionLayout& layout, const RetentionRows& rows, int head, int64_t chunk) {
  const RetentionHeader header = layout.ReadHeader(rows.memory, head);
  if (!HoldsState(layout, header) || header.folded_chunks >= chunk - 1) return -1;
  return header.folded_chunks;
}

void FoldWave(const RetentionLayout& layout, const Segments& segments, RetentionScratch& scratch, ThreadPool& pool) {
  const FoldFn run_fold = ChooseFold();
  const int heads = layout.shape().heads_kv;
  const int64_t slices = DivideUp(layout.expanded(), kFoldMonomials);
  const auto needs_fold = [&](const RetentionScratch::Segment& segment) {
    return ChunkToFold(layout, *segment.rows, 0, ChunkOf(layout, segment)) >= 0;
  };
  if (!layout.has_state() || std::none_of(segments.begin(), segments.end(), needs_fold)) return;
  pool.Run(static_cast<int64_t>(segments.size()) * heads * slices, [&](int64_t task_idx, int worker_idx) {
    const RetentionScratch::Segment& segment = segments[task_idx / slices / heads];
    const int head = static_cast<int>(task_idx / slices % heads);
    const int64_t chunk = ChunkToFold(layout, *segment.rows, head, ChunkOf(layout, segment));
    if (chunk < 0) return;
    float* memory = segment.rows->memory;
    const int64_t first = task_idx % slices * kFoldMonomials;
    const FoldTask task{.layout = &layout,
                        .blocks = layout.TailBlock(memory, head, chunk),
                        .num_blocks = 1,
                        .state = layout.State(memory, head),
                        .normalizer = layout.Normalizer(memory, head),
                        .first = first,
                        .count = std::min<int64_t>(kFoldMonomials, layout.expanded() - first)};
    run_fold(task, Workspace::Of(layout, scratch.worker(worker_idx)));
  });
  for (const RetentionScratch::Segment& segment : segments) {
    for (int head = 0; head < heads; ++head) {
      if (ChunkToFold(layout, *segment.rows, head, ChunkOf(layout, segment)) < 0) continue;
      RetentionHeader header = layout.ReadHeader(segment.rows->memory, head);
      ++header.folded_chunks;
      layout.WriteHeader(segment.rows->memory, head, header);
    }
  }
}

void AppendWave(const RetentionLayout& layout, const Segments& segments, ThreadPool& pool) {
  const int heads = layout.shape().heads_kv;
  const auto append = [&](int64_t task_idx) {
    const RetentionScratch::Segment& segment = segments[task_idx / heads];
    AppendRows(layout, *segment.rows, static_cast<int>(task_idx % heads), segment.first_row, segment.num_rows,
               segment.rows->position + segment.first_row);
  };
  const int64_t num_tasks = static_cast<int64_t>(segments.size()) * heads;
  // A few rows are copied faster than threads are woken.
  int64_t rows = 0;
  for (const RetentionScratch::Segment& segment : segments) rows += segment.num_rows;
  if (rows * heads * layout.shape().head_dim <= 4096) {
    for (int64_t task_idx = 0; task_idx < num_tasks; ++task_idx) append(task_idx);
  } else {
    pool.Run(num_tasks, [&](int64_t task_idx, int) { append(task_idx); });
  }
}

void QueryWave(const RetentionLayout& layout, Segments& segments, RetentionScratch& scratch, ThreadPool& pool) {
  const QueryFn run_query = ChooseQuery();
  const int heads = layout.shape().heads_kv;
  const int64_t panels = DivideUp(layout.padded_dim(), 32);
  const auto tiles_of = [&](const RetentionScratch::Segment& segment) {
    return DivideUp(segment.num_rows * layout.group(), kTile);
  };
  int64_t whole_tiles = 0;
  for (const RetentionScratch::Segment& segment : segments) whole_tiles += heads * tiles_of(segment);
  // Columns are split only where tiles alone would leave threads idle: each slice expands and scores again.
  const int64_t slices = std::clamp<int64_t>(DivideUp(2 * pool.num_threads(), whole_tiles), 1, panels);
  const int64_t panels_per_slice = DivideUp(panels, slices);
  int64_t num_tasks = 0;
  for (RetentionScratch::Segment& segment : segments) {
    segment.first_task = num_tasks;
    num_tasks += heads * tiles_of(segment) * slices;
  }
  pool.Run(num_tasks, [&](int64_t task_idx, int worker_idx) {
    const auto after = std::upper_bound(segments.begin(), segments.end(), task_idx,
                                        [](int64_t task, const auto& segment) { return task < segment.first_task; });
    const RetentionScratch::Segment& segment = *(after - 1);
    const int64_t local = task_idx - segment.first_task;
    const int64_t tiles = tiles_of(segment);
    const int64_t first_panel = local % slices * panels_per_slice;
    if (first_panel >= panels) return;
    const int64_t first_query = local / slices % tiles * kTile;
    const QueryTask task{.layout = &layout,
                         .rows = segment.rows,
                         .head = static_cast<int>(local / slices / tiles),
                         .first_row = segment.first_row,
                         .position = segment.rows->position + segment.first_row,
                         .first_query = first_query,
                         .num_queries = std::min<int64_t>(kTile, segment.num_rows * layout.group() - first_query),
                         .first_panel = first_panel,
                         .num_panels = std::min(panels_per_slice, panels - first_panel)};
    run_query(task, Workspace::Of(layout, scratch.worker(worker_idx)));
  });
}

}  // namespace

int64_t Workspace::Floats(const RetentionLayout& layout) {
  const int64_t d = layout.shape().head_dim;
  const int64_t panels = DivideUp(layout.padded_dim(), 32);
  return d * kTile + RoundUp(d * kDepthStride, 32) + 2 * kTile * kDepthStride + kTile + panels * kTile * 32 + kTile +
         kFoldMonomials * 16 + RoundUp(2 * layout.max_blocks(), 32);
}

Workspace Workspace::Of(const RetentionLayout& layout, float* memory) {
  static_assert(kDepth * kTile <= kTile * kDepthStride && kTile % 32 == 0);
  const int64_t d = layout.shape().head_dim;
  const auto take = [&memory](int64_t floats) {
    float* part = memory;
    memory += floats;
    return part;
  };
  Workspace space;
  space.query = take(d * kTile);
  space.key = take(RoundUp(d * kDepthStride, 32));
  space.expanded = take(kTile * kDepthStride);
  space.weights = take(kTile * kDepthStride);
  space.prefix = take(kTile);
  space.sums = take(DivideUp(layout.padded_dim(), 32) * kTile * 32);
  space.state_den = take(kTile);
  space.den_lanes = take(kFoldMonomials * 16);
  space.log_decay = reinterpret_cast<double*>(take(RoundUp(2 * layout.max_blocks(), 32)));
  return space;
}

absl::Status RetentionScratch::Reserve(const RetentionLayout& layout, int64_t max_rows, int num_threads) {
  worker_floats_ = RoundUp(Workspace::Floats(layout), 32);
  const int64_t staged_blocks = layout.has_state() ? layout.shape().switch_over / layout.shape().chunk : 0;
  const int64_t staged_bytes = staged_blocks * layout.block_floats() * static_cast<int64_t>(sizeof(float));
  if (!buffer_.Allocate(worker_floats_ * num_threads * sizeof(float)) || !staging_.Allocate(staged_bytes)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "no memory for the working space of power retention: ", worker_floats_ * num_threads * sizeof(float),
        " bytes for ", num_threads, " threads and ", staged_bytes, " bytes to stage a switch-over"));
  }
  segments_.reserve(max_rows);
  return absl::OkStatus();
}

int64_t RetentionScratch::bytes() const {
  return buffer_.size() + staging_.size() + static_cast<int64_t>(segments_.capacity() * sizeof(Segment));
}

void PowerRetention(const RetentionLayout& layout, std::span<const RetentionRows> sequences, RetentionScratch& scratch,
                    ThreadPool& pool) {
  Segments& segments = scratch.segments();
  segments.clear();
  for (const RetentionRows& rows : sequences) segments.push_back({.rows = &rows});
  for (NextWave(layout, segments); !segments.empty(); NextWave(layout, segments)) {
    FoldWave(layout, segments, scratch, pool);
    AppendWave(layout, segments, pool);
    QueryWave(layout, segments, scratch, pool);
  }
}

void SwitchOver(const RetentionLayout& layout, float* layer_memory, int head, RetentionScratch& scratch,
                ThreadPool& pool) {
  RetentionHeader header = layout.ReadHeader(layer_memory, head);
  const int64_t num_blocks = layout.has_state() ? layout.shape().switch_over / layout.shape().chunk : 0;
  if (num_blocks == 0 || HoldsState(layout, header)) return;
  const int64_t block_floats = layout.block_floats();
  std::memcpy(scratch.staging(), layout.RowsBlock(layer_memory, head, 0), num_blocks * block_floats * sizeof(float));
  std::memset(layout.Head(layer_memory, head), 0, layout.head_floats() * sizeof(float));

  const FoldFn run_fold = ChooseFold();
  pool.Run(DivideUp(layout.expanded(), kFoldMonomials), [&](int64_t task_idx, int worker_idx) {
    const int64_t first = task_idx * kFoldMonomials;
    const FoldTask task{.layout = &layout,
                        .blocks = scratch.staging(),
                        .num_blocks = num_blocks - 1,
                        .state = layout.State(layer_memory, head),
                        .normalizer = layout.Normalizer(layer_memory, head),
                        .first = first,
                        .count = std::min<int64_t>(kFoldMonomials, layout.expanded() - first)};
    run_fold(task, Workspace::Of(layout, scratch.worker(worker_idx)));
  });
  std::memcpy(layout.TailBlock(layer_memory, head, num_blocks - 1), scratch.staging() + (num_blocks - 1) * block_floats,
              block_floats * sizeof(float));
  header = {.folded_chunks = num_blocks - 1, .in_state_form = 1};
  layout.WriteHeader(layer_memory, head, header);
}

double SwitchOverFlops(const RetentionLayout& layout) {
  if (!layout.has_state()) return 0;
  const double rows = static_cast<double>(std::max<int64_t>(0, layout.shape().switch_over - layout.shape().chunk));
  return 2.0 * rows * static_cast<double>(layout.expanded()) * (layout.shape().head_dim + 1);
}

}  // namespace statehouse::kernels
