// Tokens chosen where the logits are, by the recipe of docs/sampling.md: greedy, or temperature, top-k, top-p and min-p
// with Gumbel-max. The same logits and the same choice give the host's token, bit for bit.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"

namespace statehouse::kernels {

// One choice. Lives on the device.
struct CudaChoice {
  int32_t row;        // of the logits
  float temperature;  // 0: greedy
  int64_t top_k;      // 0: off
  double top_p;       // 1: off
  double min_p;       // 0: off
  uint64_t seed;
  int64_t position;
  int32_t output;
  int32_t unused;
};

struct CudaChoiceArgs {
  const float* logits = nullptr;  // [rows, vocab]
  int64_t vocab = 0;              // at most 2^30
  const CudaChoice* choices = nullptr;
  int32_t* tokens = nullptr;       // [num_choices]: the id, or -1 where no logit is above -infinity
  int32_t* host_tokens = nullptr;  // the same again, in page-locked host memory; may be null
  int64_t num_choices = 0;
};
// Queues the choices; the first call of a process sets the kernel up. `max_shared_bytes`: of a block, after opting in.
absl::Status CudaChooseTokens(const CudaChoiceArgs& args, int max_shared_bytes, cudaStream_t stream);

}  // namespace statehouse::kernels
