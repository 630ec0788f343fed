// What the kernels of one forward pass share: tables of the plan, tensors, and the parts of the workspace.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/power_retention/cuda/tables.h"

namespace statehouse::kernels {

template <typename T>
struct RetentionArgs {
  const ChunkEntry* chunks;
  const BlockEntry* blocks;
  const int* first_chunks;  // [num_sequences + 1]
  int num_chunks, num_blocks, num_sequences;
  int heads_q, heads_kv;
  int chunk_rows;  // C rounded up to kTokenTile
  float scale_squared;

  const T* Q;  // [T, Hq, d]
  const T* K;  // [T, Hk, d]
  const T* V;
  const float* log_G;  // [T, Hk] or null
  T* y;
  float* denominator;
  const float* initial_state;
  const float* initial_normalizer;
  float* final_state;
  float* final_normalizer;

  // Workspace; n is the chunk, h the key/value head.
  float2* sums;     // [n, h, chunk_rows] log gates summed from the chunk's start: a float and what it cannot hold
  float* decay;     // [n, h] what the whole chunk leaves of the state before it
  T* keys;          // [n, h, d, chunk_rows] K transposed
  T* values;        // [n, h, chunk_rows, d] V times what is left of its row at the chunk's end
  float* local;     // [n, h, P, d] what the chunk adds to S
  float* local_z;   // [n, h, P]
  T* prefix;        // [n, h, P, d] S before the chunk, with the multiplicity 2 of tiles I < J
  float* prefix_z;  // [n, h, P] z before the chunk
};

// Is the chunk's own contribution to the state needed?
template <typename T>
__device__ __forceinline__ bool IsFolded(const RetentionArgs<T>& args, const ChunkEntry& chunk) {
  return !chunk.is_last || args.final_state != nullptr;
}
// Is there anything before the chunk?
template <typename T>
__device__ __forceinline__ bool HasState(const RetentionArgs<T>& args, const ChunkEntry& chunk) {
  return chunk.index > 0 || args.initial_state != nullptr;
}

// L_t - L_j of one chunk's sums, exact to a float's precision of the difference.
__device__ __forceinline__ float Difference(float2 a, float2 b) { return (a.x - b.x) + (a.y - b.y); }

// Tile (I, J) of pairs, by index.
struct TilePosition {
  int I, J;
};
template <int kBlocks>
__device__ __forceinline__ TilePosition TileAt(int tile) {
  int I = 0;
  while (tile >= kBlocks - I) tile -= kBlocks - I++;
  return {I, I + tile};
}

}  // namespace statehouse::kernels
