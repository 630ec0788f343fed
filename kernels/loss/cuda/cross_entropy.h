// Cross-entropy of next-token logits on the GPU, with its gradient in the place of the logits: a step's largest tensor
// is held once.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"

namespace statehouse::kernels {

// losses[r] = weights[r] · -log softmax(logits[r])[targets[r]]; logits[r] becomes gradient_scale times the loss's
// derivative. A target outside the vocabulary (-1, say) trains nothing: loss and gradient are 0. Sums in float32, in an
// order that depends on the vocabulary alone. Device memory.
struct CudaCrossEntropyArgs {
  void* logits = nullptr;  // [num_rows, vocab], float32 or bf16; in and out
  bool is_bf16 = false;
  const int32_t* targets = nullptr;  // [num_rows]
  const float* weights = nullptr;    // [num_rows]; null: all 1
  float* losses = nullptr;           // [num_rows]
  float gradient_scale = 1;          // 1 / the number of trained tokens, say
  bool wants_gradient = true;        // else logits are left as they are
  int64_t num_rows = 0;
  int64_t vocab = 0;
};
// INVALID_ARGUMENT names a null pointer.
absl::Status CudaCrossEntropy(const CudaCrossEntropyArgs& args, cudaStream_t stream);

}  // namespace statehouse::kernels
