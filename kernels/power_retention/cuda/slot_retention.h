// Power retention on the GPU for an engine: rows of several sequences, each with a slot of its own, as PowerRetention()
// and SwitchOver() of the CPU do it (kernels/power_retention/power_retention.h): rows form below the switch-over, state
// and tail from there on, folds when they are due.
//
// Slots have the CPU's layout (kernels/power_retention/layout.h) in device memory, float32, so a slot may be copied
// between the two as it is. A call is cut into waves of one chunk per sequence; within a wave the numerator and the
// denominator of a query are summed in parts (stretches of the state's monomials, stretches of the tail) that are added
// in order. With SlotRetentionMode::kDeterministic the parts depend on the shape alone, and so do the bits: not on what
// else a call holds, nor on how rows are cut into calls. kFast chooses parts that fill the GPU.
//
// Degree 2 with and without a state, degree 4 without; head sizes 16, 32, 64, 128. Thread-safety: one thread, one
// stream.
#pragma once

#include <cuda_runtime_api.h>

#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device.h"
#include "kernels/power_retention/layout.h"

namespace statehouse::kernels {

// kFastBf16: many rows of one sequence are answered with products of bf16 numbers, single rows with products of tf32
// numbers. REQUIRES: a block may have as much shared memory as the mode's kernels need (below).
enum class SlotRetentionMode { kFast, kFastBf16, kDeterministic };

// One sequence's rows in a step.
struct SlotRows {
  float* memory = nullptr;  // its slot: layer after layer, device memory
  int64_t position = 0;     // absolute position of the first row
  int32_t first_row = 0;    // in the step's arrays
  int32_t num_rows = 0;
};

// One sequence's rows within one chunk. Lives on the device.
struct SlotSegment {
  float* memory;
  int64_t position;
  int32_t first_row;
  int32_t num_rows;
};

// Queries of one segment and one key/value head that a block answers together: query m is row m / group, query head
// m % group. Lives on the device.
struct SlotTile {
  int32_t segment;
  int32_t first_query;
};

// Many rows of one sequence that go through the forward pass of whole sequences instead of waves.
struct SlotBulk {
  SlotRows rows;
  bool holds_state = false;                     // else rows form
  int64_t first_position = 0;                   // of the first row that no state may cover yet; a multiple of the chunk
  int64_t open_rows = 0;                        // last rows, which the state does not cover afterwards
  int32_t first_segment = 0, num_segments = 0;  // the rows that the slot keeps
};

// What is launched for one chunk per sequence.
struct SlotWave {
  int32_t first_segment = 0, num_segments = 0;
  int32_t first_tile = 0, num_tiles = 0;
  int32_t tile_queries = 0;  // width of its tiles
  bool few = false;          // every segment fits one tile of the kernel for few queries
  bool wide = false;         // tiles are those of the kernel on tensor cores
  bool row = false;          // one row per segment, by the kernel for that
  bool meets = false;        // of it: all its blocks run at once
  int32_t first_fold = 0, num_folds = 0;
  int32_t max_rows = 0;  // of a segment
  int32_t state_parts = 0;
  int32_t tail_parts = 0;  // the most that a tile of it has
  int32_t part_rows = 0;   // rows of the tail per part
  auto operator<=>(const SlotWave&) const = default;
};

// Whether there is a kernel on tensor cores, how much shared memory a block of it needs (0 without one), and for how
// many segments of a wave it is.
bool HasWideKernel(const RetentionLayout& layout);
int WideKernelSharedBytes(const RetentionLayout& layout);
// The same of the kernel for one row per sequence, which kFastBf16 calls.
bool HasRowKernel(const RetentionLayout& layout);
int RowKernelSharedBytes(const RetentionLayout& layout);
// The most that the kernel for few queries needs, which every mode but kDeterministic calls.
int FewKernelSharedBytes(const RetentionLayout& layout);
// Whether steps may hold bulks.
bool HasBulkForward(const RetentionLayout& layout, SlotRetentionMode mode);
inline constexpr int kMostWideSegments = 16;

// The cutting of a step, made on the host once for all layers. Reserve() is the only place that allocates.
class SlotRetentionPlan {
 public:
  // num_multiprocessors: not more than the device has, or blocks that meet would wait for ever.
  absl::Status Reserve(const RetentionLayout& layout, int64_t max_rows, SlotRetentionMode mode,
                       int num_multiprocessors);
  // REQUIRES: at most max_rows rows; no sequence's rows reach across the switch-over.
  void Make(std::span<const SlotRows> sequences);

  const std::vector<SlotSegment>& segments() const { return segments_; }
  const std::vector<SlotTile>& tiles() const { return tiles_; }
  // Segments that fold a chunk before their rows, if it is due; -1: nothing.
  const std::vector<int32_t>& folds() const { return folds_; }
  const std::vector<SlotWave>& waves() const { return waves_; }
  const std::vector<SlotBulk>& bulks() const { return bulks_; }
  // Whether SlotRetentionArgs::heads may ask for anything.
  bool takes_raw_heads() const { return bulks_.empty() && waves_.size() == 1 && waves_[0].row; }
  int64_t max_segments() const { return max_segments_; }
  int64_t max_tiles() const { return max_tiles_; }
  int64_t max_folds() const { return 2 * max_segments_; }

 private:
  bool IsBulk(const SlotRows& rows) const;
  void AddBulk(const SlotRows& rows);
  void AddTiles(SlotWave* wave);
  void ChooseParts(SlotWave* wave) const;
  void ChooseRowParts(SlotWave* wave) const;

  int64_t chunk_ = 0, switch_over_ = 0, expanded_ = 0;
  int group_ = 0, heads_kv_ = 0, head_dim_ = 0;
  bool has_wide_ = false, has_row_ = false, has_bulks_ = false;
  SlotRetentionMode mode_ = SlotRetentionMode::kFast;
  int num_multiprocessors_ = 0;
  int64_t max_segments_ = 0, max_tiles_ = 0;
  std::vector<SlotRows> left_;  // what later waves take
  std::vector<SlotSegment> segments_;
  std::vector<SlotTile> tiles_;
  std::vector<int32_t> folds_;
  std::vector<SlotWave> waves_;
  std::vector<SlotBulk> bulks_;
};

struct SlotKernelArgs;
class SlotBulkForward;

// What is still to be done to q, k and gates as CudaPrepareHeads() would do it (kernels/rope/cuda/heads.h); device
// memory. Without angles: nothing.
struct SlotHeads {
  const float* bias = nullptr;    // [(Hq + 2 Hk) d + Hk] or null
  const float* q_norm = nullptr;  // [d] or null, as k_norm
  const float* k_norm = nullptr;
  const float2* angles = nullptr;  // [rows, d / 2]
  float epsilon = 0;
};

// Rows of a step as one layer sees them; device memory, float32.
struct SlotRetentionArgs {
  // [rows, Hq, d], consecutive rows row_stride (even) floats apart; after norm and RoPE but for what `heads` names
  const float* q = nullptr;
  const float* k = nullptr;      // [rows, Hk, d], likewise
  const float* v = nullptr;      // [rows, Hk, d], likewise
  const float* log_g = nullptr;  // [rows, Hk], likewise
  int64_t row_stride = 0;
  SlotHeads heads;    // only where the plan takes_raw_heads()
  void* y = nullptr;  // [rows, Hq, d], contiguous
  bool y_is_bf16 = false;
  int64_t layer_idx = 0;
  const SlotSegment* segments = nullptr;  // the plan's, copied to the device
  const SlotTile* tiles = nullptr;
  const int32_t* folds = nullptr;
};

class SlotRetention {
 public:
  // Allocates tables and working memory. UNIMPLEMENTED names what there is no kernel for.
  static absl::StatusOr<SlotRetention> Make(const RetentionLayout& layout, SlotRetentionMode mode);
  static absl::Status CheckSupport(const RetentionLayout& layout);
  ~SlotRetention();
  SlotRetention(SlotRetention&& other) noexcept;
  SlotRetention& operator=(SlotRetention&& other) noexcept = delete;

  // Room for steps of up to max_rows rows. Without it Run() must not be given a plan with bulks.
  absl::Status Reserve(int64_t max_rows);

  // Queues one layer's retention of the step that `plan` cut.
  absl::Status Run(const SlotRetentionPlan& plan, const SlotRetentionArgs& args, cudaStream_t stream);
  // Queues the switch-over of one head; does nothing on a head that has had it.
  absl::Status SwitchOver(float* layer_memory, int head, cudaStream_t stream);

  int64_t bytes() const;
  // What Reserve() will take.
  int64_t BytesFor(int64_t max_rows) const;

 private:
  explicit SlotRetention(const RetentionLayout& layout);

  absl::Status MakeWideTables();
  absl::Status AnswerTiles(const SlotWave& wave, const SlotKernelArgs& args, int num_tiles, cudaStream_t stream);
  SlotKernelArgs KernelArgs(const SlotRetentionArgs& args) const;
  // `alone`: no other kernel of this layer comes before the wave's.
  absl::Status AnswerWave(const SlotWave& wave, const SlotRetentionArgs& args, bool alone, cudaStream_t stream);
  absl::Status AnswerRows(const SlotWave& wave, const SlotKernelArgs& args, bool overlaps, cudaStream_t stream);

  const RetentionLayout layout_;
  DeviceBuffer pairs_;                     // [D] of (i, j): monomials in canonical order
  DeviceBuffer blocks_;                    // of 16 monomials, for the kernel on tensor cores
  DeviceBuffer wide_state_;                // its copies of the state, in bf16
  DeviceBuffer numerators_;                // [tile, Hk, part, query, d]
  DeviceBuffer denominators_;              // [tile, Hk, part, query]
  DeviceBuffer arrivals_;                  // [tile, Hk, 2] of AnswerRow
  DeviceBuffer staging_;                   // one head's rows form, during its switch-over
  std::unique_ptr<SlotBulkForward> bulk_;  // where there are kernels for it
};

}  // namespace statehouse::kernels
