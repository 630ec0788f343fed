// What the kernels of one backward pass share.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/power_retention/cuda/args.cuh"

namespace statehouse::kernels {

template <typename T>
struct BackwardArgs {
  RetentionArgs<T> forward;  // tensors, tables, gate sums, states before chunks; `y` and final states are null

  const T* y;                // [T, Hq, d]
  const float* denominator;  // [T, Hq]
  const T* dY;               // [T, Hq, d]
  const float* dfinal_state;
  const float* dfinal_normalizer;
  T* dQ;
  T* dK;
  T* dV;
  float* dlog_G;  // may be null
  float* dinitial_state;
  float* dinitial_normalizer;
  bool has_prefix, has_suffix;  // are there states before chunks, gradients after them?
  bool has_saved;               // gate sums and states before chunks are those of the forward pass

  // Workspace; n is the chunk, h the key/value head, q the query head.
  float2* rows;              // [n, q, chunk_rows] σ^p / denominator (0 past the end, and where y is 0), and dY·y
  float* fold_weights;       // [n, h, FoldRows()] of rows of q in dz
  float* query_sums;         // [n, q, chunk_rows] Σ_j w dW of a row
  float2* key_sums;          // [n, h, chunk_rows] Σ_t w dW of a key: over rows of later chunks, of its own
  PrefixElement<T>* suffix;  // [n, h, P, d] gradient of S after the chunk; laid out as prefix
  float* suffix_z;           // [n, h, P]
  float* border;             // [n, h, border_parts] <dS after, S before the chunk>, by warps of the scan
  int border_parts;
};

// Is there a gradient of the state after the chunk?
template <typename T>
__device__ __forceinline__ bool HasGradient(const BackwardArgs<T>& args, const ChunkEntry& chunk) {
  return !chunk.is_last || args.dfinal_state != nullptr;
}

}  // namespace statehouse::kernels
