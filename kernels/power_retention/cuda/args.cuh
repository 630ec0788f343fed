// What the kernels of one forward pass share: tables of the plan, tensors, and the parts of the workspace.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/tables.h"

namespace statehouse::kernels {

// What the state before a chunk is kept in while a pass runs.
template <typename T>
using PrefixElement = std::conditional_t<std::is_same_v<T, bf16>, bf16, float>;

template <typename T>
struct RetentionArgs {
  const ChunkEntry* chunks;
  const BlockEntry* blocks;
  const int* first_chunks;  // [num_sequences + 1]
  int num_chunks, num_blocks, num_sequences;
  int heads_q, heads_kv;
  int chunk_rows;  // C rounded up to kTokenTile
  float scale_squared;
  int degree;
  bool has_wgmma;  // compute capability 9.0
  // What a fold sums: the rows of `fold_heads` heads, each padded to whole tiles, and in which chunks.
  int fold_heads;
  bool folds_first, folds_last;   // also in a sequence's first (last) chunk
  bool leaves_last_open = false;  // the last chunk is not part of the final state
  const float* fold_weights;      // [n, h, FoldRows()] of rows in the normaliser; null: e^{L_end - L}

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
  float2* sums;        // [n, h, chunk_rows] log gates summed from the chunk's start: a float and what it cannot hold
  float* key_factors;  // [n, h, chunk_rows] e^{L - L_j} with L at the end of j's kTokenTile rows
  float* decay;        // [n, h] what the whole chunk leaves of the state before it
  // Where there are no tensor cores, keys and values are null. Where there are warpgroup products, `keys` holds for
  // each tile of tokens keys, then values, as FoldChunksSm90 wants them, and tiles of `prefix` lie as QueryChunksSm90
  // wants them.
  T* keys;                   // [n, h, d, FoldRows()] K transposed
  T* values;                 // [n, h, FoldRows(), d] V times what is left of its row at the chunk's end
  float* local;              // [n, h, P, d] what the chunk adds to S
  float* local_z;            // [n, h, P]
  PrefixElement<T>* prefix;  // [n, h, P, d] S before the chunk, with the multiplicity 2 of tiles I < J
  float* prefix_z;           // [n, h, P] z before the chunk
};

// Is the chunk's own contribution to the state needed?
template <typename T>
__device__ __forceinline__ bool IsFolded(const RetentionArgs<T>& args, const ChunkEntry& chunk) {
  return (chunk.index > 0 || args.folds_first) && (!chunk.is_last || args.folds_last);
}
// Rows that a chunk's fold has room for, and tiles of rows that it has.
template <typename T>
__device__ __forceinline__ int FoldRows(const RetentionArgs<T>& args) {
  return args.fold_heads * args.chunk_rows;
}
template <typename T>
__device__ __forceinline__ int FoldTileCount(const RetentionArgs<T>& args, const ChunkEntry& chunk) {
  return args.fold_heads * ((chunk.num_rows + kTokenTile - 1) / kTokenTile);
}
// Is there anything before the chunk?
template <typename T>
__device__ __forceinline__ bool HasState(const RetentionArgs<T>& args, const ChunkEntry& chunk) {
  return chunk.index > 0 || args.initial_state != nullptr;
}

// L_t - L_j of one chunk's sums, exact to a float's precision of the difference.
__device__ __forceinline__ float Difference(float2 a, float2 b) { return (a.x - b.x) + (a.y - b.y); }

// Byte offset of a 16-byte unit in rows of 128 bytes: the eight units of a row are permuted by the row, so that units
// of one column lie in different banks. Warpgroup products read their right operand so.
__device__ __forceinline__ int SwizzledUnit(int row, int unit) { return row * 128 + (unit ^ (row & 7)) * 16; }

// Byte offsets of 16-byte units within a tile of 64 tokens for Hopper.
template <int kDim>
struct FoldTileSm90 {
  static constexpr int kKeyBytes = kDim * 128;
  static constexpr int kBytes = 2 * kKeyBytes;
  // Tokens 8 unit … of k_i; two rows of 64 bytes that are read together lie in different banks.
  static __device__ __forceinline__ int Key(int i, int unit) { return (i * 8 + (unit ^ (i & 1) << 2)) * 16; }
  // Columns 8 unit … of a token's values: blocks of 64 columns; rows stand in the order of the product's summed index.
  static __device__ __forceinline__ int Value(int token, int unit) {
    const int row = token / 32 * 32 + token % 8 / 4 * 16 + token % 4 / 2 * 8 + token % 32 / 8 * 2 + token % 2;
    return kKeyBytes + unit / 8 * 64 * 128 + SwizzledUnit(row, unit % 8);
  }
};

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
