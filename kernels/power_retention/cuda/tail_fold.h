// Folds a full chunk of each slot's tail into its state, in place:
//   S ← e^{L} S + Σ_j e^{L - L_j} φ(k_j) v_jᵀ,  z likewise, over the C rows from the state's end on; L sums their log
//   gates
// Sums are in float32, gate sums in double. e^{L - L_j} φ(k_j) is in float32, or, for 16-bit types with d >= 64, a tf32
// number. A bf16 state keeps 8 bits more beside it, which only the fold reads (decode.h): 16 alone would lose in a
// million tokens what they gain in four thousand (docs/gpu-kernels.md). The last bit kept is rounded up or down with
// probabilities that make the mean exact. What is drawn depends on `seed`, the state's end and the place in the layer's
// memory alone: not on the slot's address, nor on what else is in the call.
//
// Thread-safety: a call touches the states of its slots alone. The same inputs give the same bits.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/power_retention/cuda/decode.h"

namespace statehouse::kernels {

struct CudaRetentionFoldTailArgs {
  char* const* slots = nullptr;         // base addresses, on the device
  const int64_t* state_ends = nullptr;  // on the device; [state_end, state_end + rows) is folded. The caller moves them
  int num_sequences = 0;
  int64_t rows = 0;   // C: 1 … the ring's rows, all of them appended
  uint64_t seed = 0;  // of a bf16 state's rounding: another one for each layer
};

// INVALID_ARGUMENT names the field; UNIMPLEMENTED for degree 4 with d > 32, which has no state.
absl::Status CudaRetentionFoldTail(const RetentionSlotLayout& layout, const CudaRetentionFoldTailArgs& args,
                                   cudaStream_t stream);

}  // namespace statehouse::kernels
