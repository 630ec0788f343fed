// What each chunk adds to the state: local[(i, j)] = Σ_c k[c]_i k[c]_j values[c]; one matrix product whose left
// operand, the expansion of K, is formed in registers.
//
// A warp owns one 8x8 tile (I, J) of pairs, 64 rows of the result, and up to 64 columns of d. For 16 tokens at a time a
// lane reads 4 tokens of k_{8J+g} and of each k_{8I+i}; their products are, row for row, the fragments of the left
// operand: rows g and g + 8 of the m16 tile number i/2 belong to (i, 8J+g) and (i+1, 8J+g). Index k of the product
// stands for token 4t + e (k = 2t + e) and 4t + 2 + e (k = 8 + 2t + e), so that a lane's tokens are neighbours.
//   shared: kStages x (keys [d][64 tokens] + values [64 tokens][d])    registers: 128 of sums
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/args.cuh"

namespace statehouse::kernels {

template <int kDim>
struct FoldTiles {
  static constexpr int kBlocks = kDim / 8;
  static constexpr int kTiles = kBlocks * (kBlocks + 1) / 2;
  static constexpr int kColumns = kDim < 64 ? kDim : 64;  // of one warp: 4 x 8 x 4 sums per lane
  static constexpr int kColumnWarps = kDim / kColumns;
  static constexpr int kTileWarps = 4;
  static constexpr int kThreads = 32 * kTileWarps * kColumnWarps;
  static constexpr int kStages = kDim == 128 ? 3 : 4;
  static constexpr int kKeyBytes = kDim * kTokenTile * 2;
  static constexpr int kStageBytes = 2 * kKeyBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kGroups = (kTiles + kTileWarps - 1) / kTileWarps;  // thread blocks per chunk and head
};

// Byte offsets of 16-byte units within a stage, permuted so that no two lanes of one access meet in a bank.
template <int kDim>
__device__ __forceinline__ int KeyUnit(int i, int unit) {  // tokens 8 unit … 8 unit + 7 of k_i
  return (i * 8 + (unit ^ (i % 4 * 2))) * 16;
}
template <int kDim>
__device__ __forceinline__ int ValueUnit(int token, int unit) {  // columns 8 unit … of a token's row
  constexpr int kUnits = kDim / 8;
  if constexpr (kUnits >= 8) {
    return (token * kUnits + (unit ^ ((token & 1) | (token >> 1 & 6)))) * 16;
  } else {
    return (token * kUnits + (unit ^ (token >> 2 & (kUnits - 1)))) * 16;
  }
}

template <typename T, int kDim>
__device__ __forceinline__ void LoadFoldStage(const RetentionArgs<T>& args, int64_t slot, int first, uint32_t stage) {
  using Tiles = FoldTiles<kDim>;
  const T* keys = args.keys + slot * kDim * FoldRows(args) + first;
  const T* values = args.values + (slot * FoldRows(args) + first) * kDim;
  ForEach<kDim * 8, Tiles::kThreads>([&](int unit) {
    const int i = unit / 8, column = unit % 8;
    CopyAsync16(stage + KeyUnit<kDim>(i, column), keys + static_cast<int64_t>(i) * FoldRows(args) + column * 8);
  });
  constexpr int kUnits = kDim / 8;
  ForEach<kTokenTile * kUnits, Tiles::kThreads>([&](int unit) {
    const int token = unit / kUnits, column = unit % kUnits;
    CopyAsync16(stage + Tiles::kKeyBytes + ValueUnit<kDim>(token, column), values + token * kDim + column * 8);
  });
}

// Adds 16 tokens to the warp's sums.
template <typename T, int kDim>
__device__ __forceinline__ void FoldStep(const char* stage, TilePosition tile, int first_column, int step,
                                         float (&sums)[4][FoldTiles<kDim>::kColumns / 8][4]) {
  using Tiles = FoldTiles<kDim>;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const auto tokens_of = [&](int i) {  // of 4 tokens, k_i
    return *reinterpret_cast<const uint2*>(stage + KeyUnit<kDim>(i, step * 2 + t / 2) + t % 2 * 8);
  };
  const uint2 kj = tokens_of(tile.J * 8 + g);
  uint32_t b[Tiles::kColumns / 16][4];
  const int k = lane % 8 + lane / 8 % 2 * 8;  // the row whose address this lane gives
  const int token = step * 16 + k % 8 / 2 * 4 + k / 8 * 2 + k % 2;
#pragma unroll
  for (int np = 0; np < Tiles::kColumns / 16; ++np) {
    const int unit = (first_column + np * 16) / 8 + lane / 16;
    LoadMatricesTransposed(b[np], SharedAddress(stage + Tiles::kKeyBytes + ValueUnit<kDim>(token, unit)));
  }
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    const uint2 k0 = tokens_of(tile.I * 8 + 2 * m), k1 = tokens_of(tile.I * 8 + 2 * m + 1);
    const uint32_t a[4] = {Pair<T>::Multiply(k0.x, kj.x), Pair<T>::Multiply(k1.x, kj.x), Pair<T>::Multiply(k0.y, kj.y),
                           Pair<T>::Multiply(k1.y, kj.y)};
#pragma unroll
    for (int np = 0; np < Tiles::kColumns / 16; ++np) {
      Mma<T>(sums[m][2 * np], a, b[np][0], b[np][1]);
      Mma<T>(sums[m][2 * np + 1], a, b[np][2], b[np][3]);
    }
  }
}

// Grid (kGroups, Hk, chunks).
template <typename T, int kDim>
__global__ void __launch_bounds__(FoldTiles<kDim>::kThreads) FoldChunks(RetentionArgs<T> args) {
  using Tiles = FoldTiles<kDim>;
  extern __shared__ __align__(128) char shared[];
  const int n = blockIdx.z, h = blockIdx.y;
  const ChunkEntry chunk = args.chunks[n];
  if (!IsFolded(args, chunk)) return;
  const int64_t slot = static_cast<int64_t>(n) * args.heads_kv + h;
  const int warp = threadIdx.x / 32;
  const int tile_idx = blockIdx.x * Tiles::kTileWarps + warp / Tiles::kColumnWarps;
  const bool is_active = tile_idx < Tiles::kTiles;
  const TilePosition tile = TileAt<Tiles::kBlocks>(is_active ? tile_idx : 0);
  const int first_column = warp % Tiles::kColumnWarps * Tiles::kColumns;
  const int num_steps = FoldTileCount(args, chunk);

  float sums[4][Tiles::kColumns / 8][4] = {};
#pragma unroll
  for (int s = 0; s < Tiles::kStages - 1; ++s) {
    if (s < num_steps)
      LoadFoldStage<T, kDim>(args, slot, s * kTokenTile, SharedAddress(shared) + s * Tiles::kStageBytes);
    CopyCommit();
  }
  for (int step = 0; step < num_steps; ++step) {
    CopyWait<Tiles::kStages - 2>();
    __syncthreads();  // this stage has arrived for all, and all are done with the one that is loaded next
    const int next = step + Tiles::kStages - 1;
    if (next < num_steps) {
      LoadFoldStage<T, kDim>(args, slot, next * kTokenTile,
                             SharedAddress(shared) + next % Tiles::kStages * Tiles::kStageBytes);
    }
    CopyCommit();
    const char* stage = shared + step % Tiles::kStages * Tiles::kStageBytes;
    if (!is_active) continue;
#pragma unroll
    for (int k = 0; k < kTokenTile / 16; ++k) FoldStep<T, kDim>(stage, tile, first_column, k, sums);
  }
  if (!is_active) return;

  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float* local = args.local + (slot * Tiles::kTiles + tile_idx) * 64 * kDim + first_column;
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int nt = 0; nt < Tiles::kColumns / 8; ++nt) {
      float* at = local + (m * 16 + g) * kDim + nt * 8 + t * 2;
      *reinterpret_cast<float2*>(at) = {sums[m][nt][0], sums[m][nt][1]};
      *reinterpret_cast<float2*>(at + 8 * kDim) = {sums[m][nt][2], sums[m][nt][3]};
    }
  }
}

}  // namespace statehouse::kernels
