// Where one sequence keeps one layer's retention memory, and what it covers at each position.
//
// The memory of a (layer, sequence) is one block of floats, all heads after one another. Per key/value head it begins
// with a small header and then holds either
//   rows form   (position < switch_over): every row so far, in blocks of one chunk each, or
//   state form  (position >= switch_over): S [D, d], z [D], and a ring of two chunk blocks (the tail).
// The two are overlaid: rows blocks 0 … lie where S and z lie later; the ring lies behind. Definition:
// docs/retention.md.
//
// Matrices are cut into *panels* of 32 columns (16 for a last one that needs no more), each stored row after row:
//   S  panels over d of [D][32], V  panels over d of [C][32], K (transposed) panels over keys of [d][32]
// so that every product streams one panel in order, with lanes across outputs. A *chunk block* holds C rows of one
// head:
//   K  [d, C16]    V  [C, d16]    L  [2][C16]
// with C16, d16 rounded up to 16. L[.][c] is the sum of the log gates of the chunk's rows 0 … c, as a float and the
// remainder that a float cannot hold: differences of two such sums must stay exact after many closed gates.
// Unused lanes are zero or ignored. Layout is CPU-private: files use the canonical form (docs/).
// Thread-safety: immutable after Make().
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace statehouse::kernels {

// D = C(d + p - 1, p): the number of distinct degree-p monomials of d variables, in lexicographic order i <= j (<= k <=
// l).
int64_t ExpandedSize(int head_dim, int degree);

inline constexpr int kMaxHeadDim = 256;
// Value of switch_over that means: the largest multiple of C whose rows fit in the state's own bytes.
inline constexpr int64_t kSwitchOverAuto = -1;
// Value of switch_over that means: there is no state form; at most max_tail_tokens rows.
inline constexpr int64_t kNeverSwitch = INT64_MAX;

struct RetentionShape {
  int heads_q = 0;                        // Hq, a multiple of heads_kv
  int heads_kv = 0;                       // Hk
  int head_dim = 0;                       // d: 1 … 256
  int degree = 2;                         // p: 2 or 4
  float scale = 0.0f;                     // sigma; 0 means 1/sqrt(d)
  int64_t chunk = 128;                    // C: 1 … 65536
  int64_t switch_over = kSwitchOverAuto;  // rows; 0, a multiple of C, kSwitchOverAuto or kNeverSwitch
  int64_t max_tail_tokens = 0;            // rows; only with kNeverSwitch, then >= 1
};

// What a head's region begins with. All zero is right for a sequence without rows.
struct RetentionHeader {
  int64_t folded_chunks = 0;  // the state covers chunks [0, folded_chunks)
  int64_t in_state_form = 0;  // 1 once SwitchOver() has run; unused if switch_over is 0
};

class RetentionLayout {
 public:
  // Checks the shape and resolves defaults. INVALID_ARGUMENT names the field; UNIMPLEMENTED names degree and head size
  // that have no state form (degree 4 needs d <= 32 unless switch_over is kNeverSwitch).
  static absl::StatusOr<RetentionLayout> Make(const RetentionShape& shape);

  const RetentionShape& shape() const { return shape_; }  // resolved: scale and switch_over are concrete
  int group() const { return shape_.heads_q / shape_.heads_kv; }
  int64_t expanded() const { return expanded_; }
  bool has_state() const { return shape_.switch_over != kNeverSwitch; }
  // Do sequences begin in rows form and go over to a state, rather than keep the one or the other throughout?
  bool has_switch_over() const { return has_state() && shape_.switch_over > 0; }

  // Is a sequence that holds `position` tokens in state form, once SwitchOver() has run where it must?
  bool InStateForm(int64_t position) const { return has_state() && position >= shape_.switch_over; }
  // First position that the tail holds when the row at `position` is computed: 0 in rows form, else
  // C·max(0, floor(position / C) - 1). The state covers [0, TailStart(position)). (If rows were taken back across a
  // fold, the state covers up to C more than that, and the tail starts later: see PowerRetention().)
  int64_t TailStart(int64_t position) const;

  // Sizes in floats; all but panel sizes are multiples of 32, so that parts begin on cache lines.
  int64_t padded_dim() const { return padded_dim_; }      // d16
  int64_t padded_chunk() const { return padded_chunk_; }  // C16
  int64_t block_floats() const { return block_floats_; }  // one chunk block
  int64_t head_floats() const { return head_floats_; }    // one head's region
  int64_t layer_floats() const { return head_floats_ * shape_.heads_kv; }
  // The most chunk blocks that one head can hold.
  int64_t max_blocks() const { return max_blocks_; }
  // How many floats at the start of each head's region can be non-zero once `position` tokens are held: what a fork
  // copies.
  int64_t UsedHeadFloats(int64_t position) const;

  // Addresses within a layer's memory. `head` is a key/value head; `chunk_idx` is absolute (position / C).
  float* Head(float* layer, int head) const { return layer + head * head_floats_; }
  RetentionHeader ReadHeader(const float* layer, int head) const;
  void WriteHeader(float* layer, int head, const RetentionHeader& header) const;
  float* State(float* layer, int head) const { return Head(layer, head) + kHeaderFloats; }  // [D, d16] in panels
  float* Normalizer(float* layer, int head) const { return Head(layer, head) + normalizer_offset_; }  // [D]
  // Rows form: block chunk_idx. State form: ring slot chunk_idx mod 2.
  float* RowsBlock(float* layer, int head, int64_t chunk_idx) const {
    return Head(layer, head) + kHeaderFloats + chunk_idx * block_floats_;
  }
  float* TailBlock(float* layer, int head, int64_t chunk_idx) const {
    return Head(layer, head) + ring_offset_ + chunk_idx % 2 * block_floats_;
  }
  // Within a block.
  template <typename T>
  T* BlockK(T* block) const {
    return block;
  }
  template <typename T>
  T* BlockV(T* block) const {
    return block + block_v_offset_;
  }
  template <typename T>
  T* BlockL(T* block) const {
    return block + block_l_offset_;
  }
  template <typename T>
  T* BlockLRest(T* block) const {
    return block + block_l_offset_ + padded_chunk_;
  }

  // Offsets of those parts, in floats: within a head's region, and within a block.
  int64_t normalizer_offset() const { return normalizer_offset_; }
  int64_t ring_offset() const { return ring_offset_; }
  int64_t block_v_offset() const { return block_v_offset_; }
  int64_t block_l_offset() const { return block_l_offset_; }

  static constexpr int64_t kHeaderFloats = 32;

 private:
  RetentionShape shape_;
  int64_t expanded_ = 0;
  int64_t padded_dim_ = 0;
  int64_t padded_chunk_ = 0;
  int64_t block_v_offset_ = 0;
  int64_t block_l_offset_ = 0;
  int64_t block_floats_ = 0;
  int64_t normalizer_offset_ = 0;
  int64_t ring_offset_ = 0;
  int64_t max_blocks_ = 0;
  int64_t head_floats_ = 0;
};

}  // namespace statehouse::kernels
