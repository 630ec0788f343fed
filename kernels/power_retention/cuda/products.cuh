// Products of a warp's 16 rows with tiles of 64 rows in shared memory, through warpgroup products where kSm90 and
// mma.sync elsewhere: one kernel for both. Fragments and sums lie as for m16n8k16 (mma.cuh).
// Tiles: rows of 128 bytes whose 16-byte units are permuted (SwizzledUnit), blocks of 64 columns after one another;
// narrower rows use the first units.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/query_sm90.cuh"

namespace statehouse::kernels {

// Is there code for kernels with kSm90 in this pass of the compiler?
#ifdef STATEHOUSE_HAS_WGMMA
inline constexpr bool kHasWgmma = true;
#else
inline constexpr bool kHasWgmma = false;
#endif

inline constexpr int kColumnBlockBytes = 64 * 128;
template <int kDim>
inline constexpr int kTileBytes = kColumnBlockBytes*(kDim > 64 ? kDim / 64 : 1);

// Around products that run in the background; nothing to do for mma.sync.
template <bool kSm90>
__device__ __forceinline__ void BeginProducts() {
#ifdef STATEHOUSE_HAS_WGMMA
  if constexpr (kSm90) ProductsBegin();
#endif
}
template <bool kSm90>
__device__ __forceinline__ void CommitProducts() {
#ifdef STATEHOUSE_HAS_WGMMA
  if constexpr (kSm90) ProductsCommit();
#endif
}
template <bool kSm90, int kPending>
__device__ __forceinline__ void AwaitProducts() {
#ifdef STATEHOUSE_HAS_WGMMA
  if constexpr (kSm90) ProductsWait<kPending>();
#endif
}
template <bool kSm90, int kTiles>
__device__ __forceinline__ void PinProducts(float (&c)[kTiles][4]) {
#ifdef STATEHOUSE_HAS_WGMMA
  if constexpr (kSm90) PinSums(c);
#endif
}

// The byte of a tile that holds element `column` of a row.
__device__ __forceinline__ int TileOffset(int row, int column) {
  return column / 64 * kColumnBlockBytes + SwizzledUnit(row, column % 64 / 8) + column % 8 * 2;
}
// The warpgroup's index in the block, as a number that the compiler knows to be the same for all lanes.
__device__ __forceinline__ int WarpGroup() { return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128, 0); }
// This lane's row g (and g + 8) in the tile of its warpgroup's 64 rows.
__device__ __forceinline__ int LaneRow() { return threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4; }

// The left operand's fragments of columns 16 step …, for the warp's rows of a tile.
__device__ __forceinline__ void LoadLeft(uint32_t (&a)[4], uint32_t rows, int step) {
  const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32;
  LoadMatrices(a, rows + TileOffset(warp * 16 + lane % 16, step * 16 + lane / 16 * 8));
}

// c[row][n] = Σ_k rows[row][k] tile[n][k] over d: products of rows with rows, 8 kTiles of the tile's; `tile` may begin
// at any eighth row.
template <typename T, int kDim, bool kSm90, int kTiles>
__device__ __forceinline__ void MultiplyRows(float (&c)[kTiles][4], uint32_t rows, uint32_t tile) {
#ifdef STATEHOUSE_HAS_WGMMA
  if constexpr (kSm90) {
    const uint64_t a = RowsAreColumns(rows), b = RowsAreColumns(tile);
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      const int at = (step / 4 * kColumnBlockBytes + step % 4 * 32) / 16;  // descriptors count units of 16 bytes
      if (step == 0) {
        GroupMmaOfRows<T, false>(c, a, b);
      } else {
        GroupMmaOfRows<T, true>(c, a + at, b + at);
      }
    }
  } else
#endif
  {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int nt = 0; nt < kTiles; ++nt) c[nt][0] = c[nt][1] = c[nt][2] = c[nt][3] = 0;
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      uint32_t a[4];
      LoadLeft(a, rows, step);
#pragma unroll
      for (int np = 0; np < kTiles / 2; ++np) {
        uint32_t b[4];
        LoadMatrices(b, tile + TileOffset(np * 16 + lane / 16 * 8 + lane % 8, step * 16 + lane / 8 % 2 * 8));
        Mma<T>(c[2 * np], a, b[0], b[1]);
        Mma<T>(c[2 * np + 1], a, b[2], b[3]);
      }
    }
  }
}

// c[row][n] += Σ_k a[row][k] tile[16 step + k][n]: the tile's rows are summed.
template <typename T, bool kSm90, int kTiles>
__device__ __forceinline__ void SumOverRows(float (&c)[kTiles][4], const uint32_t (&a)[4], uint32_t tile, int step) {
#ifdef STATEHOUSE_HAS_WGMMA
  if constexpr (kSm90) {
    GroupMma<T, true>(c, a, RowsAreSummed(tile, kColumnBlockBytes) + step * (16 * 128 / 16));
  } else
#endif
  {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int np = 0; np < kTiles / 2; ++np) {
      uint32_t b[4];
      LoadMatricesTransposed(
          b, tile + np / 4 * kColumnBlockBytes + SwizzledUnit(step * 16 + lane % 16, np % 4 * 2 + lane / 16));
      Mma<T>(c[2 * np], a, b[0], b[1]);
      Mma<T>(c[2 * np + 1], a, b[2], b[3]);
    }
  }
}

// φ of the warp's rows for the pairs of tile (I, J) of the state: four left operands of 16 pairs.
template <typename T>
__device__ __forceinline__ void ExpandRows(const char* rows, TilePosition tile, uint32_t (&a)[4][4]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = LaneRow() + half * 8;
    const uint32_t xj = *reinterpret_cast<const uint32_t*>(rows + TileOffset(row, tile.J * 8) + t * 4);
    const uint4 xi = *reinterpret_cast<const uint4*>(rows + TileOffset(row, tile.I * 8));
    const uint32_t pairs[4] = {xi.x, xi.y, xi.z, xi.w};
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      a[s][half] = Pair<T>::Multiply(RepeatLow(pairs[s]), xj);
      a[s][half + 2] = Pair<T>::Multiply(RepeatHigh(pairs[s]), xj);
    }
  }
}

// The tiles of one chunk state, in order, through kStages buffers: by bulk copies and barriers where kSm90, else by
// cp.async and barriers of the block. All threads of the block take part.
template <typename T, int kDim, bool kSm90, int kStages, int kThreads>
class StateTiles {
 public:
  static constexpr int kBlocks = kDim / 8;
  static constexpr int kTiles = kBlocks * (kBlocks + 1) / 2;

  // Two barriers per stage, in shared memory; initialised by the first thread before a __syncthreads().
  struct Barriers {
    uint64_t full[kStages], empty[kStages];
  };
  static __device__ __forceinline__ void Init(Barriers& barriers) {
#ifdef STATEHOUSE_HAS_WGMMA
    if constexpr (kSm90) {
      if (threadIdx.x == 0) {
        for (int s = 0; s < kStages; ++s) {
          At(barriers.full[s]).Init(1);
          At(barriers.empty[s]).Init(kThreads / 32);
        }
        FenceBarrierInit();
      }
    }
#endif
  }

  // Starts to bring the first tiles.
  __device__ __forceinline__ StateTiles(Barriers& barriers, uint32_t buffers, const T* state)
      : barriers_(barriers), buffers_(buffers), state_(state) {
    if constexpr (kSm90) {
      if (threadIdx.x == 0) {
#pragma unroll 1
        for (int tile = 0; tile < (kStages < kTiles ? kStages : kTiles); ++tile) Load(tile);
      }
    } else {
#pragma unroll 1
      for (int tile = 0; tile < kStages - 1; ++tile) Load(tile);
    }
  }

  // The tile's address, once it is there. REQUIRES: tiles in order.
  __device__ __forceinline__ uint32_t Acquire(int tile) {
    if constexpr (kSm90) {
#ifdef STATEHOUSE_HAS_WGMMA
      At(barriers_.full[tile % kStages]).Wait(tile / kStages % 2);
#endif
    } else {
      CopyWait<kStages - 2>();
      __syncthreads();  // the tile has arrived for all, and all are done with the buffer that is filled next
      Load(tile + kStages - 1);
    }
    return buffers_ + tile % kStages * kTileBytes<kDim>;
  }

  // This warp is done with a tile. REQUIRES: tiles in order.
  __device__ __forceinline__ void Release(int tile) {
#ifdef STATEHOUSE_HAS_WGMMA
    if constexpr (kSm90) {
      if (threadIdx.x % 32 == 0) At(barriers_.empty[tile % kStages]).Arrive();
      if (threadIdx.x == 0 && tile > 0 && tile - 1 + kStages < kTiles) {  // one back: nobody is far behind
        At(barriers_.empty[(tile - 1) % kStages]).Wait((tile - 1) / kStages % 2);
        Load(tile - 1 + kStages);
      }
      __syncwarp();
    }
#endif
  }

 private:
#ifdef STATEHOUSE_HAS_WGMMA
  static __device__ __forceinline__ BulkBarrier& At(uint64_t& state) { return reinterpret_cast<BulkBarrier&>(state); }
#endif
  __device__ __forceinline__ void Load(int tile) {
    const uint32_t buffer = buffers_ + tile % kStages * kTileBytes<kDim>;
    if constexpr (kSm90) {
#ifdef STATEHOUSE_HAS_WGMMA
      BulkBarrier& full = At(barriers_.full[tile % kStages]);
      full.ArriveAndExpect(kTileBytes<kDim>);
      full.Copy(buffer, state_ + int64_t{tile} * 64 * kDim, kTileBytes<kDim>);
#endif
    } else {
      if (tile < kTiles) LoadOperand<T, kDim, kThreads>(buffer, state_ + int64_t{tile} * 64 * kDim, kDim, 64);
      CopyCommit();
    }
  }

  Barriers& barriers_;
  uint32_t buffers_;
  const T* state_;
};

}  // namespace statehouse::kernels
