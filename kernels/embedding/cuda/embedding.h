// The rows of an embedding matrix that a step's tokens ask for, on the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"

namespace statehouse::kernels {

// out[i] = table[tokens[i]], or table[chosen[-1 - tokens[i]]] where tokens[i] is negative (of a chosen one: row 0).
// Device memory; every other token is a row of the table.
struct CudaEmbedArgs {
  const void* table = nullptr;  // [vocab, size], float32 or bf16
  bool is_bf16 = false;
  const int32_t* tokens = nullptr;  // [num_rows]
  const int32_t* chosen = nullptr;  // may be null where no token is negative
  float* out = nullptr;             // [num_rows, size]
  int64_t num_rows = 0;
  int64_t size = 0;
};
absl::Status CudaEmbed(const CudaEmbedArgs& args, cudaStream_t stream);

}  // namespace statehouse::kernels
