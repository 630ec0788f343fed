// The part of a decode step that answers from the state: φ(q)ᵀ S and φ(q)ᵀ z for 16 rows, bound by reading S once.
//
// A warp takes stages of up to 4 KB of consecutive rows of S, every kDecodeWarps-th one of its block, through a ring in
// shared memory of its own that asynchronous copies keep full: enough bytes are under way without registers or barriers
// of the block. From there they become right operands of matrix products (decode_steps.cuh).
//   shared: q [16][d + 4] in float32; per warp kStages x (rows, then their z and scales); afterwards the warps' sums
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/decode_args.cuh"
#include "kernels/power_retention/cuda/decode_steps.cuh"
#include "kernels/power_retention/cuda/state_elements.cuh"
#include "kernels/power_retention/cuda/widen.cuh"

namespace statehouse::kernels {

// The stages [first, last) of one head's state that a block reads, seen by one warp.
template <typename S, int kDim>
class StateReader {
  using Tiles = DecodeTiles<S, kDim>;

 public:
  // `ring`: the warp's shared memory. `scales`: of int8 alone.
  __device__ __forceinline__ StateReader(const S* state, const float* z, const bf16* scales, int first, int last,
                                         char* ring)
      : stage_(first + static_cast<int>(threadIdx.x) / 32), last_(last), ring_(ring) {
    const int lane = threadIdx.x % 32;
    from_ = reinterpret_cast<const char*>(state) + int64_t{stage_} * Tiles::kStateBytes + lane * 16;
    z_from_ = z + stage_ * Tiles::kStageRows + lane * 4;
    scales_from_ = scales + stage_ * (Tiles::kStageRows / kScaleRows);
  }

  // Asks for as many stages as the ring holds.
  __device__ __forceinline__ void Start() {
#pragma unroll
    for (int n = 0; n < Tiles::kRing; ++n) Load(stage_ + n * kDecodeWarps, ring_ + n * Tiles::kStageBytes);
  }

  // Adds all stages. REQUIRES: Start(), and the queries are in shared memory.
  template <bool kIsExact>
  __device__ __forceinline__ void Add(const float* queries, DecodeSums<kDim>& sums) {
    const int in_tile = stage_ % Tiles::kStagesPerTile * Tiles::kStageRows;
    TilePosition at = TileAt<Tiles::kBlocks>(min(stage_ / Tiles::kStagesPerTile, Tiles::kTiles - 1));
    char* rows = ring_;
#pragma unroll 1
    for (; stage_ < last_; stage_ += kDecodeWarps) {
      CopyWait<Tiles::kRing - 1>();
      __syncwarp();  // the stage has arrived for all lanes
      const StepQueries<S, kDim> step_queries(queries, at);
#pragma unroll 1
      for (int row = 0; row < Tiles::kStageRows; row += Tiles::kStepRows)
        DecodeStep<kIsExact>(step_queries, rows, row, (in_tile + row) / 8, sums);
      __syncwarp();  // all lanes are done with it
      Load(stage_ + Tiles::kRing * kDecodeWarps, rows);
      rows = rows == ring_ + (Tiles::kRing - 1) * Tiles::kStageBytes ? ring_ : rows + Tiles::kStageBytes;
      at.J += kDecodeWarps / Tiles::kStagesPerTile;
      while (at.J >= Tiles::kBlocks && at.I < Tiles::kBlocks) {  // the tiles of row I + 1 begin at J = I + 1
        at.J += ++at.I - Tiles::kBlocks;
      }
    }
    CopyWait<0>();
  }

 private:
  // Asks for a stage, if there is one; stages in order.
  __device__ __forceinline__ void Load(int stage, char* to) {
    const int lane = threadIdx.x % 32;
    if (stage < last_) {
      const uint32_t address = SharedAddress(to);
#pragma unroll
      for (int u = 0; u < Tiles::kStateBytes / 512; ++u) {
        const int unit = u * 32 + lane;
        CopyAsync16(address + Tiles::Unit(unit / Tiles::kUnits, unit % Tiles::kUnits), from_ + u * 512);
      }
      if (lane < Tiles::kStageRows / 4) CopyAsync16(address + Tiles::kStateBytes + lane * 16, z_from_);
      from_ += kDecodeWarps * Tiles::kStateBytes;
      z_from_ += kDecodeWarps * Tiles::kStageRows;
      if constexpr (Tiles::kScaleBytes > 0) {
        if (lane == 31)
          CopyAsync<Tiles::kScaleBytes>(address + Tiles::kStateBytes + Tiles::kStageRows * 4, scales_from_);
        scales_from_ += kDecodeWarps * (Tiles::kStageRows / kScaleRows);
      }
    }
    CopyCommit();
  }

  int stage_, last_;
  char* ring_;
  const char* from_;     // this lane's first unit of the next stage to ask for
  const float* z_from_;  // and of its z
  const bf16* scales_from_;
};

// Adds the warps' sums in order and writes the block's part: the first `num_rows` rows. REQUIRES: the block is done
// with `shared`.
template <typename S, int kDim>
__device__ __forceinline__ void StoreStatePart(float* shared, DecodeSums<kDim>& sums, int num_rows,
                                               const DecodePart& part) {
  using Tiles = DecodeTiles<S, kDim>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float* own = shared + warp * kDecodeRows * Tiles::kSumStride;
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    float* row = own + (g + r / 2 * 8) * Tiles::kSumStride + (2 * t + r % 2) * Tiles::kSumPitch;
    if constexpr (Tiles::kOwn % 4 == 0) {
#pragma unroll
      for (int e = 0; e < Tiles::kOwn; e += 4)
        *reinterpret_cast<float4*>(row + e) = {sums.y[e][r], sums.y[e + 1][r], sums.y[e + 2][r], sums.y[e + 3][r]};
    } else {
#pragma unroll
      for (int e = 0; e < Tiles::kOwn; ++e) row[e] = sums.y[e][r];
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = sums.denominator[half];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (t == 0) own[(g + half * 8) * Tiles::kSumStride + 8 * Tiles::kSumPitch] = sum;
  }
  __syncthreads();
  constexpr int kVector = Tiles::kOwn % 4 == 0 ? 4 : 2;
#pragma unroll 2
  for (int at = threadIdx.x; at < num_rows * (kDim / kVector); at += kDecodeThreads) {
    const int row = at / (kDim / kVector), column = at % (kDim / kVector) * kVector;
    const float* from =
        shared + row * Tiles::kSumStride + column / Tiles::kOwn * Tiles::kSumPitch + column % Tiles::kOwn;
    Neighbours<float, kVector> sum = {};
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w) {
      const auto own_sum =
          *reinterpret_cast<const Neighbours<float, kVector>*>(from + w * kDecodeRows * Tiles::kSumStride);
#pragma unroll
      for (int e = 0; e < kVector; ++e) sum.x[e] += own_sum.x[e];
    }
    *reinterpret_cast<Neighbours<float, kVector>*>(part.y + row * kDim + column) = sum;
  }
  if (threadIdx.x < num_rows) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w)
      sum += shared[(w * kDecodeRows + threadIdx.x) * Tiles::kSumStride + 8 * Tiles::kSumPitch];
    part.denominators[threadIdx.x] = sum;
  }
}

}  // namespace statehouse::kernels
