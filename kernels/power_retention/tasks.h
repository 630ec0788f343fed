// The pieces of work that one power-retention call is cut into, and the working memory of the thread that does one.
// Cuts change no bit. Private to kernels/power_retention.
#pragma once

#include <cstdint>

#include "kernels/power_retention/layout.h"
#include "kernels/power_retention/power_retention.h"

namespace statehouse::kernels {

// Queries (row, query head) or monomials per tile: eight register tiles of 12. One tile's expanded block of 64 takes 24
// KB.
inline constexpr int kTile = 96;
// Monomials of a query, or keys, that are expanded or scored at a time.
inline constexpr int kDepth = 64;
// Monomials per fold task: four tiles share the work on the keys, and their part of S (192 KB for d = 128) stays in L2.
inline constexpr int kFoldMonomials = 4 * kTile;
// Row stride of [kTile, kDepth] arrays: a little more than the rows, so that they do not fall into the same cache sets.
inline constexpr int kDepthStride = kDepth + 16;

// Working memory of one thread.
struct Workspace {
  float* query = nullptr;       // [d][kTile], transposed
  float* key = nullptr;         // [d][kDepthStride], transposed
  float* expanded = nullptr;    // queries [depth][lanes] or keys [kTile][kDepthStride]
  float* prefix = nullptr;      // [kTile]: the product of a monomial's leading factors (degree 4)
  float* weights = nullptr;     // [kTile][kDepthStride]
  float* sums = nullptr;        // [panels][kTile][32], numerators
  float* state_den = nullptr;   // [kTile]
  float* den_lanes = nullptr;   // [kFoldMonomials][16]
  double* log_decay = nullptr;  // [max_blocks]

  static int64_t Floats(const RetentionLayout& layout);
  static Workspace Of(const RetentionLayout& layout, float* memory);
};

// Answers `num_queries` queries of one head and chunk, in some panels of output columns.
struct QueryTask {
  const RetentionLayout* layout = nullptr;
  const RetentionRows* rows = nullptr;
  int head = 0;             // key/value head
  int64_t first_row = 0;    // row of `rows` that query 0 belongs to
  int64_t position = 0;     // its absolute position; all queries lie in one chunk
  int64_t first_query = 0;  // query index = (row - first_row) · group + query head within the group
  int64_t num_queries = 0;  // <= kTile
  int64_t first_panel = 0;
  int64_t num_panels = 0;
};

// Folds whole chunks, in order, into some monomials of one head's state.
struct FoldTask {
  const RetentionLayout* layout = nullptr;
  const float* blocks = nullptr;  // chunk blocks, one after another
  int64_t num_blocks = 0;
  float* state = nullptr;       // S of the head
  float* normalizer = nullptr;  // z of the head
  int64_t first = 0;            // monomials
  int64_t count = 0;            // <= kFoldMonomials
};

using QueryFn = void (*)(const QueryTask&, const Workspace&);
using FoldFn = void (*)(const FoldTask&, const Workspace&);
// The code for this machine's instruction set.
QueryFn ChooseQuery();
FoldFn ChooseFold();

// Writes rows [first_row, first_row + num_rows) of one head behind each other into the chunk block of `position`; they
// must lie in one chunk.
void AppendRows(const RetentionLayout& layout, const RetentionRows& rows, int head, int64_t first_row, int64_t num_rows,
                int64_t position);
// Sum of the log gates of a chunk's rows 0 … c.
inline double GateSum(const RetentionLayout& layout, const float* block, int64_t c) {
  return static_cast<double>(layout.BlockL(block)[c]) + static_cast<double>(layout.BlockLRest(block)[c]);
}
// Is this head's memory in state form? Told by its header, so that it stays true after rows were taken back.
inline bool HoldsState(const RetentionLayout& layout, const RetentionHeader& header) {
  return layout.has_state() && (layout.shape().switch_over == 0 || header.in_state_form != 0);
}
// The block of a chunk in whichever form the head is.
inline float* ChunkBlock(const RetentionLayout& layout, const RetentionHeader& header, float* layer, int head,
                         int64_t chunk_idx) {
  return HoldsState(layout, header) ? layout.TailBlock(layer, head, chunk_idx)
                                    : layout.RowsBlock(layer, head, chunk_idx);
}

}  // namespace statehouse::kernels
