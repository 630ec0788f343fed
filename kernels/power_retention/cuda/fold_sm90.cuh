// FoldChunks for Hopper: the same sums through warpgroup products.
//
// A warpgroup owns a few tiles (I, J) of pairs, neighbours in the order of rows I, so that they mostly share k_I. For
// 32 tokens a lane reads 8 tokens of k_{8J+g} and of two k_{8I+i}; their products are the left operand in registers,
// values the right one in shared memory. Index k of step s stands for token 8t + 4s + e (k = 2t + e) and 8t + 4s + 2 +
// e (k = 8 + 2t + e). Tiles of 64 tokens come by bulk copies; PrepareRows laid them out.
//
// Shared memory is what bounds it: per step and tile of d = 64, 16 cycles of right operand and 4 (2 + 4 / tiles of a
// warpgroup) of keys, against 32 of products.
//   shared: kStages x FoldTileSm90    registers: d=64: 3 x 32 of sums, d=128: 2 x 64
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/wgmma.cuh"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

template <int kDim>
struct FoldTilesSm90 {
  static constexpr int kBlocks = kDim / 8;
  static constexpr int kTiles = kBlocks * (kBlocks + 1) / 2;
  static constexpr int kGroupTiles = kDim == 64 ? 3 : 2;  // of a warpgroup
  static constexpr int kGroups = 2;                       // warpgroups of a block
  static constexpr int kThreads = 128 * kGroups;
  static constexpr int kStages = kDim == 64 ? 8 : 5;
  static constexpr int kStageBytes = FoldTileSm90<kDim>::kBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes + 1024;  // and the way to a multiple of 1024
  static constexpr int kGrid = (kTiles + kGroupTiles * kGroups - 1) / (kGroupTiles * kGroups);
};

#ifdef STATEHOUSE_HAS_WGMMA

// Adds 32 tokens to the warpgroup's sums; the products are left under way.
template <typename T, int kDim>
__device__ __forceinline__ void FoldStepSm90(const char* stage, int c,
                                             const TilePosition (&tiles)[FoldTilesSm90<kDim>::kGroupTiles],
                                             float (&sums)[FoldTilesSm90<kDim>::kGroupTiles][kDim / 8][4],
                                             uint32_t (&a)[FoldTilesSm90<kDim>::kGroupTiles][2][4]) {
  constexpr int kGroupTiles = FoldTilesSm90<kDim>::kGroupTiles;
  const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const auto tokens_of = [&](int i) {  // 8 of 32 tokens of k_i
    return *reinterpret_cast<const uint4*>(stage + FoldTileSm90<kDim>::Key(i, c * 4 + t));
  };
  uint4 k0, k1;
#pragma unroll
  for (int m = 0; m < kGroupTiles; ++m) {
    if (m == 0 || tiles[m].I != tiles[m - 1].I) {
      k0 = tokens_of(tiles[m].I * 8 + 2 * warp);
      k1 = tokens_of(tiles[m].I * 8 + 2 * warp + 1);
    }
    const uint4 kj = tokens_of(tiles[m].J * 8 + g);
    a[m][0][0] = Pair<T>::Multiply(k0.x, kj.x), a[m][0][1] = Pair<T>::Multiply(k1.x, kj.x);
    a[m][0][2] = Pair<T>::Multiply(k0.y, kj.y), a[m][0][3] = Pair<T>::Multiply(k1.y, kj.y);
    a[m][1][0] = Pair<T>::Multiply(k0.z, kj.z), a[m][1][1] = Pair<T>::Multiply(k1.z, kj.z);
    a[m][1][2] = Pair<T>::Multiply(k0.w, kj.w), a[m][1][3] = Pair<T>::Multiply(k1.w, kj.w);
  }
  ProductsBegin();
  const uint32_t values = SharedAddress(stage) + FoldTileSm90<kDim>::kKeyBytes;
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    const uint64_t b = RowsAreSummed(values + (c * 32 + s * 16) * 128, kTokenTile * 128);
#pragma unroll
    for (int m = 0; m < kGroupTiles; ++m) GroupMma<T, true>(sums[m], a[m][s], b);
  }
  ProductsCommit();
}

#endif  // STATEHOUSE_HAS_WGMMA

// Grid (kGrid, Hk, chunks).
template <typename T, int kDim>
__global__ void __launch_bounds__(FoldTilesSm90<kDim>::kThreads, 1) FoldChunksSm90(RetentionArgs<T> args) {
#ifdef STATEHOUSE_HAS_WGMMA
  using Tiles = FoldTilesSm90<kDim>;
  constexpr int kGroupTiles = Tiles::kGroupTiles, kStages = Tiles::kStages;
  extern __shared__ __align__(1024) char unaligned[];
  __shared__ BulkBarrier full[kStages], empty[kStages];
  char* shared = unaligned + (1024 - SharedAddress(unaligned) % 1024) % 1024;
  const int n = blockIdx.z, h = blockIdx.y;
  const ChunkEntry chunk = args.chunks[n];
  if (!IsFolded(args, chunk)) {
    WaitForResults();
    return;
  }
  const int64_t slot = static_cast<int64_t>(n) * args.heads_kv + h;
  const int group = threadIdx.x / 128, warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32, g = lane / 4,
            t = lane % 4;
  const int first_tile = (blockIdx.x * Tiles::kGroups + group) * kGroupTiles;
  TilePosition tiles[kGroupTiles];
#pragma unroll
  for (int m = 0; m < kGroupTiles; ++m) tiles[m] = TileAt<Tiles::kBlocks>(min(first_tile + m, Tiles::kTiles - 1));
  const int num_steps = FoldTileCount(args, chunk);
  const char* source =
      reinterpret_cast<const char*>(args.keys) + slot * (FoldRows(args) / kTokenTile) * Tiles::kStageBytes;

  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      full[s].Init(1);
      empty[s].Init(Tiles::kThreads / 32);
    }
    FenceBarrierInit();
  }
  __syncthreads();  // the barriers are there
  const auto load = [&](int step) {
    const int stage = step % kStages;
    full[stage].ArriveAndExpect(Tiles::kStageBytes);
    full[stage].Copy(SharedAddress(shared) + stage * Tiles::kStageBytes, source + int64_t{step} * Tiles::kStageBytes,
                     Tiles::kStageBytes);
  };
  if (threadIdx.x == 0) {
    for (int step = 0; step < min(kStages, num_steps); ++step) load(step);
  }

  float sums[kGroupTiles][kDim / 8][4] = {};
  uint32_t even[kGroupTiles][2][4], odd[kGroupTiles][2][4];
#pragma unroll 1
  for (int step = 0; step < num_steps; ++step) {
    const char* stage = shared + step % kStages * Tiles::kStageBytes;
    full[step % kStages].Wait(step / kStages % 2);
    FoldStepSm90<T, kDim>(stage, 0, tiles, sums, even);
    ProductsWait<1>();  // the stage before is done with
    if (step > 0) {
      __syncwarp();  // all lanes have read its keys
      if (lane == 0) empty[(step - 1) % kStages].Arrive();
    }
    if (threadIdx.x == 0 && step > 1 && step - 2 + kStages < num_steps) {  // two back: nobody is far behind
      empty[(step - 2) % kStages].Wait((step - 2) / kStages % 2);
      load(step - 2 + kStages);
    }
    __syncwarp();
    FoldStepSm90<T, kDim>(stage, 1, tiles, sums, odd);
    ProductsWait<1>();
  }
  ProductsWait<0>();
  WaitForResults();  // the scan, which comes next, needs what FoldNormalizer writes beside this kernel

#pragma unroll
  for (int m = 0; m < kGroupTiles; ++m) {
    PinSums(sums[m]);
    if (first_tile + m >= Tiles::kTiles) continue;
    float* local = args.local + ((slot * Tiles::kTiles + first_tile + m) * 64 + warp * 16 + g) * kDim + t * 2;
#pragma unroll
    for (int nt = 0; nt < kDim / 8; ++nt) {
      *reinterpret_cast<float2*>(local + nt * 8) = {sums[m][nt][0], sums[m][nt][1]};
      *reinterpret_cast<float2*>(local + 8 * kDim + nt * 8) = {sums[m][nt][2], sums[m][nt][3]};
    }
  }
#endif
}

}  // namespace statehouse::kernels
