// The gradient of an embedding matrix on the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"

namespace statehouse::kernels {

// dtable[token] += Σ of dout over the token's rows, in the order of the rows. Device memory; tokens, firsts and rows
// are what FindTokenRows() (embedding/token_rows.h) gives; every token is a row of the table.
struct CudaEmbedBackwardArgs {
  const float* dout = nullptr;      // [num_rows, size]
  const int32_t* tokens = nullptr;  // [num_tokens]
  const int32_t* firsts = nullptr;  // [num_tokens + 1]
  const int32_t* rows = nullptr;    // [num_rows]
  float* dtable = nullptr;          // [vocab, size]
  int64_t num_tokens = 0;           // distinct ones
  int64_t size = 0;
};
// INVALID_ARGUMENT names a null pointer.
absl::Status CudaEmbedBackward(const CudaEmbedBackwardArgs& args, cudaStream_t stream);

}  // namespace statehouse::kernels
