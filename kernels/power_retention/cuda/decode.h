// Power retention on the GPU for a few new rows of many sequences: each row is answered from the sequence's state and
// tail.
//
//   y[t] = (σ² e^{L} φ(q)ᵀ S + Σ_{j in tail, j <= t} (σ q·k_j)² e^{L[t]-L[j]} v_j) / (the same with z and 1)
//
// Of degree 4 there is a state for d <= 32, in float32; for larger heads the tail alone. The slots here are not the
// engine's: slot_retention.h answers from those.
//
// A slot is the memory of one layer of one sequence, one block of device memory laid out by RetentionSlotLayout: the
// state S and z as in retention.h (S in float32, bf16, or int8 with a scale for each 8 rows; beside bf16 and int8, what
// rounding left, which folds need), and a ring of tail rows K, V, log_g; the row at absolute
// position t lies at t mod tail_rows. Positions live on the device, so that a captured graph can be replayed as
// sequences grow.
//
// The order of summation depends on the shape and `splits` alone. Thread-safety: calls that share a workspace must be
// in one stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

enum class RetentionStateDtype { kFloat32, kBf16, kInt8 };
const char* RetentionStateDtypeName(RetentionStateDtype dtype);  // "float32", "bf16", "int8"

struct CudaRetentionSlotShape {
  int heads_q = 0;  // Hq, a multiple of heads_kv
  int heads_kv = 0;
  int head_dim = 0;                              // d: 16, 32, 64 or 128
  int degree = 2;                                // p: 2; or 4, with d > 32 in tail form only: state_end is 0 for ever
  float scale = 0;                               // sigma; 0 means 1/sqrt(d)
  int64_t tail_rows = 0;                         // rows that the ring holds
  RetentionDtype dtype = RetentionDtype::kBf16;  // of q, k, v, y and the tail's K and V
  RetentionStateDtype state_dtype = RetentionStateDtype::kFloat32;
};

// Has a slot of the shape a state beside its tail?
constexpr bool RetentionSlotHasState(const CudaRetentionSlotShape& shape) {
  return shape.degree == 2 || shape.head_dim <= kMostFourthDim;
}

class RetentionSlotLayout {
 public:
  // INVALID_ARGUMENT names the field; UNIMPLEMENTED names a combination without kernels.
  static absl::StatusOr<RetentionSlotLayout> Make(const CudaRetentionSlotShape& shape);

  const CudaRetentionSlotShape& shape() const { return shape_; }  // resolved: scale is concrete
  // Byte offsets within a slot, multiples of 256.
  size_t state() const { return 0; }  // [Hk, P, d], P = RetentionStateRows(d, degree)
  // [Hk, P, d] int8, of a state in bf16 or int8: what the state has beyond the nearest number that decoding reads, in
  // units of 2^-8 of that one's last place. Zero for a state that is given in bf16.
  size_t rests() const { return rests_; }
  // [Hk, P / 8] bf16, of a state in int8: the scale of rows 8 n … 8 n + 7, all columns. S = scale (state + rest / 256).
  size_t scales() const { return scales_; }
  size_t normalizer() const { return normalizer_; }  // [Hk, P] float32
  size_t keys() const { return keys_; }              // [Hk, tail_rows, d]
  size_t values() const { return values_; }          // [Hk, tail_rows, d]
  size_t gates() const { return gates_; }            // [Hk, tail_rows] float32, log gates
  size_t bytes() const { return bytes_; }

 private:
  CudaRetentionSlotShape shape_;
  size_t rests_ = 0, scales_ = 0, normalizer_ = 0, keys_ = 0, values_ = 0, gates_ = 0, bytes_ = 0;
};

// The sequences of one call; arrays on the device, one entry per sequence.
struct CudaRetentionSlots {
  char* const* slots = nullptr;         // base addresses
  const int64_t* positions = nullptr;   // absolute position of the first new row
  const int64_t* state_ends = nullptr;  // the state covers [0, state_end); state_end > position - tail_rows
  int num_sequences = 0;
  int num_rows = 1;  // new rows of each sequence
};

// Writes the new rows into the tails. K, V [sequence, num_rows, Hk, d], log_G [sequence, num_rows, Hk] or null (0).
absl::Status CudaRetentionAppend(const RetentionSlotLayout& layout, const CudaRetentionSlots& slots, const void* K,
                                 const void* V, const float* log_G, cudaStream_t stream);

struct CudaRetentionDecodeArgs {
  const void* q = nullptr;    // [sequence, num_rows, Hq, d]
  void* y = nullptr;          // [sequence, num_rows, Hq, d]
  void* workspace = nullptr;  // RetentionDecodeWorkspace(...) bytes
  int splits = 0;             // thread blocks per head over the state; 0: chosen for the batch and the device
  // A promise that lets the state be read while the kernel queued before this call still runs (from compute capability
  // 9.0 on): that kernel writes none of `slots`, `positions`, `state_ends`, the states, or tail rows before
  // `positions`; and if it lets dependents start early, it does so only when all that was queued before it is done.
  bool is_settled = false;
};

// Rows may number up to 16 per sequence. The new rows must have been appended.
absl::Status CudaRetentionDecode(const RetentionSlotLayout& layout, const CudaRetentionSlots& slots,
                                 const CudaRetentionDecodeArgs& args, cudaStream_t stream);
// How many splits a call with splits = 0 uses, and what workspace a call needs.
int RetentionDecodeSplits(const RetentionSlotLayout& layout, int num_sequences, int num_multiprocessors);
size_t RetentionDecodeWorkspace(const RetentionSlotLayout& layout, int num_sequences, int num_rows, int splits);

}  // namespace statehouse::kernels
