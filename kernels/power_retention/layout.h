// Where one sequence keeps one layer's retention memory, and what it covers at each position.
//
// The memory of a (layer, sequence) is one block of floats, all heads after one another. Per key/value head it holds either
//   rows form   (position < switch_over): every row so far, in blocks of one chunk each, or
//   state form  (position >= switch_over): S [D, d], z [D], and a ring of two chunk blocks (the tail).
// The two are overlaid: rows blocks 0 … lie where S and z lie later; the ring lies behind. Definition: docs/retention.md.
//
// A *chunk block* holds C rows of one head: K transposed in panels of 16 rows, V row-major, and the running gate sums:
//   K  [ceil(C/16), d, 16]    V  [C, d]    L  [ceil(C/16)·16]   (L[c] = sum of log gates of the chunk's rows 0 … c)
// Unused lanes and rows are zero, or ignored. Layout is CPU-private: files use the canonical form (docs/).
// Thread-safety: immutable after Make().
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace statehouse::kernels {

// D = C(d + p - 1, p): the number of distinct degree-p monomials of d variables, in lexicographic order i <= j (<= k <= l).
int64_t ExpandedSize(int head_dim, int degree);

// Value of switch_over that means: the largest multiple of C whose rows fit in the state's own bytes.
inline constexpr int64_t kSwitchOverAuto = -1;
// Value of switch_over that means: there is no state form; at most max_tail_tokens rows.
inline constexpr int64_t kNeverSwitch = INT64_MAX;

struct RetentionShape {
  int heads_q = 0;        // Hq, a multiple of heads_kv
  int heads_kv = 0;       // Hk
  int head_dim = 0;       // d: 1 … 256
  int degree = 2;         // p: 2 or 4
  float scale = 0.0f;     // sigma; 0 means 1/sqrt(d)
  int64_t chunk = 128;    // C: 1 … 65536
  int64_t switch_over = kSwitchOverAuto;  // rows; 0, a multiple of C, kSwitchOverAuto or kNeverSwitch
  int64_t max_tail_tokens = 0;            // rows; only with kNeverSwitch, then >= 1
};

class RetentionLayout {
 public:
  // Checks the shape and resolves defaults. INVALID_ARGUMENT names the field; UNIMPLEMENTED names degree and head size that
  // have no state form (degree 4 needs d <= 32 unless switch_over is kNeverSwitch).
  static absl::StatusOr<RetentionLayout> Make(const RetentionShape& shape);

  const RetentionShape& shape() const { return shape_; }  // resolved: scale and switch_over are concrete
  int group() const { return shape_.heads_q / shape_.heads_kv; }
  int64_t expanded() const { return expanded_; }
  bool has_state() const { return shape_.switch_over != kNeverSwitch; }

  // Is a sequence that holds `position` tokens in state form? (position >= switch_over, and past the first fold.)
  bool InStateForm(int64_t position) const;
  // First position that the tail holds when the row at `position` is computed: 0 in rows form, else
  // C·max(0, floor(position / C) - 1). The state covers [0, TailStart(position)).
  int64_t TailStart(int64_t position) const;

  // Sizes in floats.
  int64_t block_floats() const { return block_floats_; }  // one chunk block
  int64_t head_floats() const { return head_floats_; }    // one head's region
  int64_t layer_floats() const { return head_floats_ * shape_.heads_kv; }
  // How many floats at the start of each head's region can be non-zero once `position` tokens are held: what a fork copies.
  int64_t UsedHeadFloats(int64_t position) const;

  // Addresses within a layer's memory. `head` is a key/value head; `chunk_idx` is absolute (position / C).
  float* State(float* layer, int head) const;       // [D, d]
  float* Normalizer(float* layer, int head) const;  // [D]
  float* RowsBlock(float* layer, int head, int64_t chunk_idx) const;  // rows form
  float* TailBlock(float* layer, int head, int64_t chunk_idx) const;  // state form: ring slot chunk_idx mod 2
  float* BlockK(float* block) const { return block; }
  float* BlockV(float* block) const { return block + block_v_offset_; }
  float* BlockL(float* block) const { return block + block_l_offset_; }

 private:
  RetentionShape shape_;
  int64_t expanded_ = 0;
  int64_t block_v_offset_ = 0;
  int64_t block_l_offset_ = 0;
  int64_t block_floats_ = 0;
  int64_t normalizer_offset_ = 0;
  int64_t ring_offset_ = 0;
  int64_t head_floats_ = 0;
};

}  // namespace statehouse::kernels
