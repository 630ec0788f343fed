// What each chunk adds to the normaliser's state: local_z[(i, j)] = Σ_c weight[c] k[c]_i k[c]_j, that is, the
// weighted Gram matrix of K, d x d x C. Weights are split into two numbers of the tensor cores' type, so that z is as
// exact as float32 sums make it: what y is divided by has no rounding of 16 bits in it.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

template <int kDim>
struct NormalizerTiles {
  static constexpr int kThreads = 2 * kDim;  // a warp for 16 rows of the result
  static constexpr int kStageBytes = kDim * kTokenTile * 2;
  static constexpr int kSharedBytes = 2 * (kStageBytes + kTokenTile * 4);
};

template <typename T, int kDim>
__device__ __forceinline__ void LoadNormalizerStage(const RetentionArgs<T>& args, int64_t slot, int num_rows, int first,
                                                    char* stage) {
  using Tiles = NormalizerTiles<kDim>;
  ForEach<kDim * 8, Tiles::kThreads>([&](int unit) {
    const int i = unit / 8, column = unit % 8;
    const T* from = args.keys + (slot * kDim + i) * FoldRows(args) + first + column * 8;
    if (args.has_wgmma) {
      from = args.keys + ((slot * FoldRows(args) + first) / kTokenTile * FoldTileSm90<kDim>::kBytes +
                          FoldTileSm90<kDim>::Key(i, column)) /
                             2;
    }
    CopyAsync16(SharedAddress(stage) + (i * 8 + (column ^ i % 8)) * 16, from);
  });
  CopyCommit();
  const float2* sums = args.sums + slot * args.chunk_rows;
  float* left = reinterpret_cast<float*>(stage + Tiles::kStageBytes);
  for (int c = threadIdx.x; c < kTokenTile; c += Tiles::kThreads) {
    if (args.fold_weights != nullptr) {
      left[c] = args.fold_weights[slot * FoldRows(args) + first + c];
    } else {
      left[c] = first + c < num_rows ? expf(Difference(sums[num_rows - 1], sums[first + c])) : 0.0f;
    }
  }
}

// Grid (chunks, Hk).
template <typename T, int kDim>
__global__ void __launch_bounds__(NormalizerTiles<kDim>::kThreads) FoldNormalizer(RetentionArgs<T> args) {
  using Tiles = NormalizerTiles<kDim>;
  extern __shared__ __align__(128) char shared[];
  LetDependentsStart();  // the fold does not need z
  const int n = blockIdx.x, h = blockIdx.y;
  const ChunkEntry chunk = args.chunks[n];
  if (!IsFolded(args, chunk)) return;
  const int64_t slot = static_cast<int64_t>(n) * args.heads_kv + h;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int num_steps = FoldTileCount(args, chunk);
  constexpr int kBytes = Tiles::kStageBytes + kTokenTile * 4;

  float sums[kDim / 8][4] = {};
  LoadNormalizerStage<T, kDim>(args, slot, chunk.num_rows, 0, shared);
  for (int step = 0; step < num_steps; ++step) {
    CopyWait<0>();
    __syncthreads();  // this stage has arrived for all, and all are done with the other
    if (step + 1 < num_steps) {
      LoadNormalizerStage<T, kDim>(args, slot, chunk.num_rows, (step + 1) * kTokenTile,
                                   shared + (step + 1) % 2 * kBytes);
    }
    const char* stage = shared + step % 2 * kBytes;
    const float* left = reinterpret_cast<const float*>(stage + Tiles::kStageBytes);
    const auto address = [&](int row, int unit) { return SharedAddress(stage) + (row * 8 + (unit ^ row % 8)) * 16; };
#pragma unroll
    for (int k = 0; k < kTokenTile / 16; ++k) {
      uint32_t a[4], high[4], low[4];
      LoadMatrices(a, address(warp * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float2 weights = *reinterpret_cast<const float2*>(left + k * 16 + r / 2 * 8 + t * 2);
        const float x = weights.x * Pair<T>::Low(a[r]), y = weights.y * Pair<T>::High(a[r]);
        high[r] = Pair<T>::Pack(x, y);
        low[r] = Pair<T>::Pack(x - Pair<T>::Low(high[r]), y - Pair<T>::High(high[r]));
      }
#pragma unroll
      for (int np = 0; np < kDim / 16; ++np) {
        uint32_t b[4];
        LoadMatrices(b, address(np * 16 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
        Mma<T>(sums[2 * np], high, b[0], b[1]);
        Mma<T>(sums[2 * np + 1], high, b[2], b[3]);
        Mma<T>(sums[2 * np], low, b[0], b[1]);
        Mma<T>(sums[2 * np + 1], low, b[2], b[3]);
      }
    }
  }

  float* local = args.local_z + slot * RetentionStateRows(kDim);
#pragma unroll
  for (int nt = 0; nt < kDim / 8; ++nt) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int i = warp * 16 + g + r / 2 * 8, j = nt * 8 + t * 2 + r % 2;
      if (i <= j) local[RetentionStateRow(i, j, kDim)] = sums[nt][r];
      if (i < j && i / 8 == j / 8) local[RetentionStateRow(j, i, kDim)] = sums[nt][r];  // the same bits on both sides
    }
  }
}

}  // namespace statehouse::kernels
