// Power retention on the GPU over whole sequences: y[t] = Σ_j (σ q[t]·k[j])² e^{G[t]-G[j]} v[j] / Σ_j (same weight).
//
// What a forward pass of training or a prefill calls: rows of several sequences lie packed after one another, each
// starts from its own state or from none and may leave its final state. Within chunks of C rows the sum runs over
// pairs, across chunks through the state (docs/gpu-kernels.md). bf16 goes through tensor cores; fp16 and float32
// through float32 arithmetic, in which no square of fp16 numbers overflows, and so does degree 4, σ q·k to the fourth;
// it has states for d <= 32, else the sum over pairs alone. The same inputs give the same bits.
//
// State on the device: S [sequence, Hk, P, d] and z [sequence, Hk, P], float32, with P = RetentionStateRows(d). Pairs
// (i, j) are cut into 8x8 tiles (I, J), I <= J; row 64 (tile index) + 8 (i mod 8) + j mod 8 holds Σ k_i k_j v, without
// the multiplicity 2 of i < j, and tiles I = J hold (j, i) beside (i, j). Export and import convert to the canonical
// form. Of degree 4 the state is the canonical one, P = RetentionStateRows(d, 4) = C(d + 3, 4): a row for each product
// of four in lexicographic order, as often as it occurs. Thread-safety: a plan is immutable; calls that share a
// workspace must be in one stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device.h"

namespace statehouse::kernels {

enum class RetentionDtype { kBf16, kFp16, kFloat32 };
const char* RetentionDtypeName(RetentionDtype dtype);

struct CudaRetentionShape {
  int heads_q = 0;          // Hq, a multiple of heads_kv
  int heads_kv = 0;         // Hk
  int head_dim = 0;         // d: 16, 32, 64 or 128
  int degree = 2;           // p: 2, or 4: for d > 32 only in sequences of up to 65536 rows
  float scale = 0;          // sigma; 0 means 1/sqrt(d)
  int64_t chunk = 0;        // C: 1 … 65536; 0: what was measured to be fastest; unused for degree 4 and d > 32
  bool has_states = false;  // of degree 4: calls may bring and take states, for which the workspace has room
  RetentionDtype dtype = RetentionDtype::kBf16;  // of Q, K, V, y
};

// P: rows of the padded state of one head.
constexpr int64_t RetentionStateRows(int head_dim) { return int64_t{head_dim} / 8 * (head_dim / 8 + 1) / 2 * 64; }
// The row that holds the pair (i, j). REQUIRES: i / 8 <= j / 8 (else swap them).
constexpr int64_t RetentionStateRow(int i, int j, int head_dim) {
  const int64_t blocks = head_dim / 8, I = i / 8, J = j / 8;
  return (I * blocks - I * (I - 1) / 2 + (J - I)) * 64 + (i % 8) * 8 + j % 8;
}

// Rows of the state of one head of degree 2 or 4: of degree 4 one for each monomial, C(d + 3, 4).
constexpr int64_t RetentionStateRows(int head_dim, int degree) {
  const int64_t d = head_dim;
  return degree == 2 ? RetentionStateRows(head_dim) : d * (d + 1) / 2 * (d + 2) / 3 * (d + 3) / 4;
}

// The largest head size with states of degree 4.
inline constexpr int kMostFourthDim = 32;

// How packed sequences are cut into chunks and blocks. Made once per step and used by every layer.
class CudaRetentionPlan {
 public:
  // cu_seqlens: first rows of the sequences and the total, ascending from 0; sequences may be empty. Copies tables to
  // the device and waits. INVALID_ARGUMENT names the field; UNIMPLEMENTED names head size and type that this build has
  // no kernel for.
  // open_rows (0 … C): so many last rows of each sequence are a chunk of their own, and not part of its final state.
  static absl::StatusOr<CudaRetentionPlan> Make(const CudaRetentionShape& shape, std::span<const int64_t> cu_seqlens,
                                                int64_t open_rows = 0);

  const CudaRetentionShape& shape() const { return shape_; }  // resolved: scale and chunk are concrete
  int64_t num_rows() const { return num_rows_; }
  int num_sequences() const { return num_sequences_; }
  int num_chunks() const { return num_chunks_; }
  int num_blocks() const { return num_blocks_; }
  int64_t open_rows() const { return open_rows_; }
  bool has_long_sequence() const { return has_long_sequence_; }  // longer than one chunk
  size_t workspace_bytes() const { return workspace_bytes_; }
  const void* chunk_table() const { return tables_.as<char>(); }
  const void* block_table() const { return tables_.as<char>() + block_table_offset_; }
  const int* sequence_table() const {
    return reinterpret_cast<const int*>(tables_.as<char>() + sequence_table_offset_);
  }

 private:
  CudaRetentionShape shape_;
  int64_t num_rows_ = 0;
  int num_sequences_ = 0;
  int num_chunks_ = 0;
  int num_blocks_ = 0;
  int64_t open_rows_ = 0;
  bool has_long_sequence_ = false;
  size_t workspace_bytes_ = 0;
  size_t block_table_offset_ = 0;
  size_t sequence_table_offset_ = 0;
  DeviceBuffer tables_;
};

// Which instructions a call uses: the best that the GPU has, or those of sm_80 on every GPU (for comparison).
enum class RetentionPath { kBest, kMmaSync };

// All pointers are device memory, 16-byte aligned; T is plan.num_rows().
struct CudaRetentionForwardArgs {
  const void* Q = nullptr;                    // [T, Hq, d]
  const void* K = nullptr;                    // [T, Hk, d]
  const void* V = nullptr;                    // [T, Hk, d]
  const float* log_G = nullptr;               // [T, Hk], <= 0 (below -200 counts as -200); null: no gates
  void* y = nullptr;                          // [T, Hq, d]
  float* denominator = nullptr;               // [T, Hq], what y was divided by; may be null
  const float* initial_state = nullptr;       // [sequence, Hk, P, d]; null: zero
  const float* initial_normalizer = nullptr;  // [sequence, Hk, P]; null exactly if initial_state is
  float* final_state = nullptr;               // [sequence, Hk, P, d]; may be null; may be initial_state itself
  float* final_normalizer = nullptr;          // [sequence, Hk, P]; null exactly if final_state is
  void* workspace = nullptr;                  // plan.workspace_bytes()
  // CudaRetentionSavedBytes() for the backward pass over the same plan (CudaRetentionBackwardArgs::saved); null: that
  // pass computes states before chunks again.
  void* saved = nullptr;
  RetentionPath path = RetentionPath::kBest;
};

// Bytes of what a forward pass can leave for its backward pass: the state before each chunk, and sums of gates.
size_t CudaRetentionSavedBytes(const CudaRetentionPlan& plan);

// Queues the kernels and returns. INVALID_ARGUMENT names a missing pointer.
absl::Status CudaRetentionForward(const CudaRetentionPlan& plan, const CudaRetentionForwardArgs& args,
                                  cudaStream_t stream);

// Between the device's layout and the canonical one of files: S [count, D, d] and z [count, D], D = d(d+1)/2 pairs i <=
// j in lexicographic order, i < j counted twice. count: sequences times heads. Source and target must not overlap.
absl::Status ExportRetentionState(int64_t count, int head_dim, const float* S, const float* z, float* canonical_S,
                                  float* canonical_z, cudaStream_t stream);
absl::Status ImportRetentionState(int64_t count, int head_dim, const float* canonical_S, const float* canonical_z,
                                  float* S, float* z, cudaStream_t stream);

}  // namespace statehouse::kernels
