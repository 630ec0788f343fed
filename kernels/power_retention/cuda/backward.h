// The gradients of power retention on the GPU: what a training step calls after CudaRetentionForward() (retention.h).
//
// With the forward pass's inputs, y and denominators, and the derivatives of a loss by y (and by the final state), it
// gives those by Q, K, V, log_G and the initial state. Expansions are computed again, and so are chunk states unless
// the forward pass was asked to keep them (`saved`). A sequence of one chunk needs no states: its gradients run over
// pairs of rows alone, which is cheaper for short ones (RetentionBackwardChunk()). The same inputs give the same bits.
//
// bf16 goes through tensor cores; fp16 and float32 through float32 arithmetic, in which no square of fp16 numbers
// overflows, and so does degree 4, which has states for d <= 32. States and their gradients have the layout of
// retention.h; each element of a gradient is the derivative by that element of the padded layout, tiles I < J (which
// count twice in y) included. Thread-safety: as retention.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

// The chunk length for sequences of up to `longest` rows: all rows in one chunk (the quadratic form) up to the
// crossover, else the length that was measured to be fastest. `crossover`: rows up to which the quadratic form is
// taken; 0: where both forms take equally many operations. Never above 65536 rows.
int64_t RetentionBackwardChunk(const CudaRetentionShape& shape, int64_t longest, int64_t crossover = 0);

// All pointers are device memory, 16-byte aligned; T is plan.num_rows(). Without `saved` the plan may cut chunks
// otherwise than the forward pass did. Outputs must not overlap inputs.
struct CudaRetentionBackwardArgs {
  const void* Q = nullptr;                    // [T, Hq, d]
  const void* K = nullptr;                    // [T, Hk, d]
  const void* V = nullptr;                    // [T, Hk, d]
  const float* log_G = nullptr;               // [T, Hk]; null: no gates
  const void* y = nullptr;                    // [T, Hq, d], of the forward pass
  const float* denominator = nullptr;         // [T, Hq], of the forward pass
  const void* dY = nullptr;                   // [T, Hq, d]
  const float* initial_state = nullptr;       // [sequence, Hk, P, d]; null: zero
  const float* initial_normalizer = nullptr;  // [sequence, Hk, P]; null exactly if initial_state is
  const float* dfinal_state = nullptr;        // [sequence, Hk, P, d]; null: zero
  const float* dfinal_normalizer = nullptr;   // [sequence, Hk, P]; null exactly if dfinal_state is
  void* dQ = nullptr;                         // [T, Hq, d]
  void* dK = nullptr;                         // [T, Hk, d]
  void* dV = nullptr;                         // [T, Hk, d]
  float* dlog_G = nullptr;                    // [T, Hk]; may be null
  float* dinitial_state = nullptr;            // [sequence, Hk, P, d]; may be null
  float* dinitial_normalizer = nullptr;       // [sequence, Hk, P]; null exactly if dinitial_state is
  void* workspace = nullptr;                  // CudaRetentionBackwardWorkspace()
  // What the forward pass left at its `saved`, with this plan, the same inputs and the same `path`: states before
  // chunks are then not computed again. It is read only. Null: nothing is needed of the forward pass but y and
  // denominators.
  const void* saved = nullptr;
  RetentionPath path = RetentionPath::kBest;
};

// Bytes of a call's workspace. `has_states`: one of the six pointers to states is not null.
size_t CudaRetentionBackwardWorkspace(const CudaRetentionPlan& plan, bool has_states);

// Is there a backward pass of this degree, type and head size? UNIMPLEMENTED names what is missing.
absl::Status CheckRetentionBackwardShape(const CudaRetentionShape& shape);

// Queues the kernels and returns. INVALID_ARGUMENT names a missing pointer; UNIMPLEMENTED a type or head size that
// this build has no kernel for, and states of degree 4 with head_dim above 32.
absl::Status CudaRetentionBackward(const CudaRetentionPlan& plan, const CudaRetentionBackwardArgs& args,
                                   cudaStream_t stream);

}  // namespace statehouse::kernels
