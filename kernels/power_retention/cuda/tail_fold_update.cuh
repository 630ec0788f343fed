// How a fold's sums meet the state in a slot, in place: e^L S + sums, rounded as the slot keeps it
// (state_elements.cuh).
//
// What is drawn for the rounding is counted by the place within the layer's states and the state's end.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/philox.cuh"
#include "kernels/power_retention/cuda/fold_tf32.cuh"
#include "kernels/power_retention/cuda/fold_wide.cuh"
#include "kernels/power_retention/cuda/state_elements.cuh"
#include "kernels/power_retention/cuda/widen.cuh"

namespace statehouse::kernels {

template <int kDim>
struct TailFoldShared {
  WideFoldShared<kDim> batch;
  double later;      // Σ log_g of the rows behind the batch
  uint32_t most[8];  // of a state with scales: bits of the largest magnitude of each 8 rows of the tile
};

// Where a slot keeps what a fold changes.
template <typename S>
struct TailFoldState {
  S* states;
  int8_t* rests;          // unused for float32
  __nv_bfloat16* scales;  // of int8 alone
  float* z;
};

// What the update of a state needs beside the sums.
struct StateUpdate {
  float decay;  // e^L
  float loss;   // e^L - 1, in full precision where e^L is near 1: what a million open gates would make of its rounding
  uint2 key;    // of the rounding
  uint2 position;  // the state's end
};

// e^L old + added
__device__ __forceinline__ float Updated(float old, float added, const StateUpdate& update) {
  return update.decay < 0.5f ? fmaf(update.decay, old, added) : old + fmaf(update.loss, old, added);
}

// 128 random bits for an element and its neighbours.
__device__ __forceinline__ uint4 Draw(int64_t place, const StateUpdate& update) {
  return Philox(
      {static_cast<uint32_t>(place), static_cast<uint32_t>(place >> 32), update.position.x, update.position.y},
      update.key);
}

// kColumns neighbours of S in place: e^L S + sums. `element`: the first one's place within the layer's states.
template <int kColumns>
__device__ __forceinline__ void UpdateState(float* state, int8_t*, const float (&sums)[kColumns],
                                            const StateUpdate& update, int64_t) {
  constexpr int kVector = kColumns < 4 ? kColumns : 4;
#pragma unroll
  for (int first = 0; first < kColumns; first += kVector) {
    auto& row = *reinterpret_cast<Neighbours<float, kVector>*>(state + first);
    Neighbours<float, kVector> updated = row;
#pragma unroll
    for (int c = 0; c < kVector; ++c) updated.x[c] = Updated(updated.x[c], sums[first + c], update);
    row = updated;
  }
}
template <int kColumns>
__device__ __forceinline__ void UpdateState(bf16* state, int8_t* rests, const float (&sums)[kColumns],
                                            const StateUpdate& update, int64_t element) {
  constexpr int kVector = kColumns < 8 ? kColumns : 8;
#pragma unroll
  for (int first = 0; first < kColumns; first += kVector) {
    const uint4 drawn = Draw(element + first, update);
    const uint32_t random[4] = {drawn.x, drawn.y, drawn.z, drawn.w};
    auto& row = *reinterpret_cast<Neighbours<uint16_t, kVector>*>(state + first);
    auto& rest_row = *reinterpret_cast<Neighbours<int8_t, kVector>*>(rests + first);
    Neighbours<uint16_t, kVector> updated = row;
    Neighbours<int8_t, kVector> updated_rests = rest_row;
#pragma unroll
    for (int c = 0; c < kVector; ++c) {
      const float next = Updated(Join(updated.x[c], updated_rests.x[c]), sums[first + c], update);
      const BfloatAndRest split = Split(next, random[c / 4] >> c % 4 * 8 & 0xffu);
      updated.x[c] = split.nearest;
      updated_rests.x[c] = split.rest;
    }
    row = updated;
    rest_row = updated_rests;
  }
}

// z of the tile, from its first row on. All threads call it.
template <int kDim>
__device__ __forceinline__ void UpdateNormalizer(const WideFoldSums<kDim>& sums, TailFoldShared<kDim>&, float* z,
                                                 const StateUpdate& update) {
  const int row = WideFoldSums<kDim>::Row() * 8;
  if (threadIdx.x % 32 != 0) return;
#pragma unroll
  for (int j = 0; j < 8; ++j) z[row + j] = Updated(z[row + j], sums.z[j], update);
}
template <int kDim>
__device__ __forceinline__ void UpdateNormalizer(const Tf32FoldSums<kDim>& sums, TailFoldShared<kDim>& shared, float* z,
                                                 const StateUpdate& update) {
  __syncthreads();  // all are done with the last batch
  const float added = sums.SumNormalizer(shared.batch);
  if (threadIdx.x < 64) z[threadIdx.x] = Updated(z[threadIdx.x], added, update);
}

// S and z of the tile, from its first row on. All threads call it.
template <typename S, int kDim>
__device__ __forceinline__ void UpdateTile(const WideFoldSums<kDim>& sums, TailFoldShared<kDim>& shared,
                                           const TailFoldState<S>& to, int64_t first_row, const StateUpdate& update) {
  using Sums = WideFoldSums<kDim>;
  const int64_t row = first_row + Sums::Row() * 8;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const int64_t element = (row + j) * kDim + Sums::Column();
    float own[Sums::kColumns];
#pragma unroll
    for (int c = 0; c < Sums::kColumns; ++c) own[c] = sums.S[j][c];
    if (Sums::HasColumns()) UpdateState<Sums::kColumns>(to.states + element, to.rests + element, own, update, element);
  }
  UpdateNormalizer<kDim>(sums, shared, to.z + first_row, update);
}
template <typename S, int kDim>
__device__ __forceinline__ void UpdateTile(const Tf32FoldSums<kDim>& sums, TailFoldShared<kDim>& shared,
                                           const TailFoldState<S>& to, int64_t first_row, const StateUpdate& update) {
  using Sums = Tf32FoldSums<kDim>;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t element = (first_row + Sums::Row() + half * 8) * kDim + Sums::Column();
    float row[Sums::kColumns];
    sums.Get(half, row);
    UpdateState<Sums::kColumns>(to.states + element, to.rests + element, row, update, element);
  }
  UpdateNormalizer<kDim>(sums, shared, to.z + first_row, update);
}

// A thread's rows of the tile in either kind of sums; all of a warp's rows of one index share a scale.
template <typename Sums>
struct RowsOfSums;
template <int kDim>
struct RowsOfSums<WideFoldSums<kDim>> {
  using Sums = WideFoldSums<kDim>;
  static constexpr int kRows = 8, kColumns = Sums::kColumns;
  static __device__ __forceinline__ int Row(int r) { return Sums::Row() * 8 + r; }
  static __device__ __forceinline__ bool HasColumns() { return Sums::HasColumns(); }
  static __device__ __forceinline__ float At(const Sums& sums, int r, int c) { return sums.S[r][c]; }
};
template <int kDim>
struct RowsOfSums<Tf32FoldSums<kDim>> {
  using Sums = Tf32FoldSums<kDim>;
  static constexpr int kRows = 2, kColumns = Sums::kColumns;
  static __device__ __forceinline__ int Row(int r) { return Sums::Row() + 8 * r; }
  static __device__ __forceinline__ bool HasColumns() { return true; }
  static __device__ __forceinline__ float At(const Sums& sums, int r, int c) {
    return c < Sums::kOwn ? sums.S[c][2 * r] : sums.S[c - Sums::kOwn][2 * r + 1];
  }
};

// As UpdateTile() for a state of bytes: first all new numbers and the largest of each scale, then their rounding.
template <typename Sums, int kDim>
__device__ __forceinline__ void UpdateScaledTile(const Sums& sums, TailFoldShared<kDim>& shared,
                                                 const TailFoldState<int8_t>& to, int64_t first_row,
                                                 const StateUpdate& update) {
  using Rows = RowsOfSums<Sums>;
  constexpr int kColumns = Rows::kColumns;
  __nv_bfloat16* scales = to.scales + first_row / kScaleRows;
  float updated[Rows::kRows][kColumns];
#pragma unroll
  for (int r = 0; r < Rows::kRows; ++r) {
    const int row = Rows::Row(r);
    uint32_t most = 0;
    if (Rows::HasColumns()) {
      const int64_t element = (first_row + row) * kDim + Sums::Column();
      const float scale = __bfloat162float(scales[row / kScaleRows]);
      const auto nearest = *reinterpret_cast<const Neighbours<int8_t, kColumns>*>(to.states + element);
      const auto rests = *reinterpret_cast<const Neighbours<int8_t, kColumns>*>(to.rests + element);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        updated[r][c] = Updated(JoinScaled(nearest.x[c], rests.x[c], scale), Rows::At(sums, r, c), update);
        most = max(most, __float_as_uint(updated[r][c]) & 0x7fffffffu);
      }
    }
    most = __reduce_max_sync(0xffffffffu, most);
    if (threadIdx.x % 32 == 0) atomicMax(&shared.most[row / kScaleRows], most);
  }
  __syncthreads();  // the largest are known, and all old scales are read
#pragma unroll
  for (int r = 0; r < Rows::kRows; ++r) {
    if (!Rows::HasColumns()) continue;
    const int row = Rows::Row(r);
    const int64_t element = (first_row + row) * kDim + Sums::Column();
    const float most = __uint_as_float(shared.most[row / kScaleRows]), scale = ScaleFor(most), steps = StepsOf(scale);
    const uint4 drawn = Draw(element, update);
    const uint32_t random[4] = {drawn.x, drawn.y, drawn.z, drawn.w};
    Neighbours<int8_t, kColumns> nearest, rests;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const float x = updated[r][c];
      const ByteAndRest split = SplitScaled(x, scale, steps, random[c / 4] >> c % 4 * 8 & 0xffu, fabsf(x) == most);
      nearest.x[c] = split.nearest;
      rests.x[c] = split.rest;
    }
    *reinterpret_cast<Neighbours<int8_t, kColumns>*>(to.states + element) = nearest;
    *reinterpret_cast<Neighbours<int8_t, kColumns>*>(to.rests + element) = rests;
  }
  if (threadIdx.x < 8) scales[threadIdx.x] = __float2bfloat16_rn(ScaleFor(__uint_as_float(shared.most[threadIdx.x])));
  UpdateNormalizer<kDim>(sums, shared, to.z + first_row, update);
}

}  // namespace statehouse::kernels
