// The part of a decode step that answers from the tail, for bf16: 64 rows of the ring, by products of bf16 numbers;
// weights as two numbers each, so that they keep the precision of float32 sums.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/decode_args.cuh"

namespace statehouse::kernels {

// The log gates of one head's ring, by distance from the state's end.
struct RingGates {
  const float* gates;
  int start, size;
  // The gate of a row up to `last`; 0 behind it.
  __device__ __forceinline__ float At(int row, int last) const {
    const int at = start + min(row, last);
    const float gate = gates[at < size ? at : at - size];
    return row <= last ? fmaxf(-200.0f, gate) : 0.0f;
  }
  // Of rows first … last, added by one warp. Eight loads of a lane are under way at a time.
  __device__ __forceinline__ double Sum(int first, int last) const {
    constexpr int kAhead = 8;
    double sum = 0;
    for (int row = first + static_cast<int>(threadIdx.x % 32); row <= last; row += kAhead * 32) {
      float loaded[kAhead];
#pragma unroll
      for (int u = 0; u < kAhead; ++u) loaded[u] = At(row + u * 32, last);
#pragma unroll
      for (int u = 0; u < kAhead; ++u) sum += loaded[u];
    }
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    return sum;
  }
};

// Log gates around one block's 64 rows, summed.
struct TailDecays {
  float after[kTailPart];     // after each row up to `position`
  float drafts[kDecodeRows];  // of the first new rows after `position`

  // From new row `new_row` back to tail row `row` of the block's 64, the range's `key`-th.
  __device__ __forceinline__ float Between(int row, int key, int new_row, int position) const {
    const float decay = after[row] + drafts[new_row];
    return key > position ? decay - drafts[key - position] : decay;
  }
};

// (σ s)^degree
__device__ __forceinline__ float RaiseScore(const DecodeArgs& args, float score) {
  const float squared = score * score * args.scale_squared;
  return args.degree == 2 ? squared : squared * squared;
}

// Shared memory of a block that answers from the tail.
template <typename T, int kDim>
struct TailShared {
  static constexpr int kScoreWarps = kTailPart / 16;
  static constexpr int kStride = kDim + 8, kWeightStride = kTailPart + 8;
  T queries[kDecodeRows * kStride];
  union {
    T keys[kTailPart * kStride];
    T weights[2][kDecodeRows * kWeightStride];  // what a T holds of them, and what it does not
  };
  T values[kTailPart * kStride];
  TailDecays decays;
  float denominators[kScoreWarps][kDecodeRows];
};

// Gate sums of tail rows [first, first + 64), counted from the state's end; `position` likewise, the first new row.
// What is older than that can be added up before the new rows are there. One warp.
class TailGateSums {
 public:
  __device__ __forceinline__ TailGateSums(const RingGates& gates, int first, int position)
      : gates_(gates), first_(first), position_(position) {
    static_assert(kTailPart == 64);  // two rows of a lane
    const int lane = threadIdx.x % 32;
    const double even = Settled(first + 2 * lane);
    odd_ = Settled(first + 2 * lane + 1);
    double sum = even + odd_;
    for (int offset = 1; offset < 32; offset *= 2) {
      const double other = __shfl_down_sync(0xffffffffu, sum, offset);
      if (lane + offset < 32) sum += other;
    }
    after_ = sum - even - odd_;
    if (position > first + kTailPart) after_ += gates.Sum(first + kTailPart, position - 1);
  }

  // With the new rows' gates. REQUIRES: they are there.
  __device__ __forceinline__ void Finish(int num_rows, TailDecays& decays) const {
    const int lane = threadIdx.x % 32, row = first_ + 2 * lane;
    const double newest = gates_.At(position_, position_);
    decays.after[2 * lane] = static_cast<float>(row < position_ ? after_ + odd_ + newest : 0.0);
    decays.after[2 * lane + 1] = static_cast<float>(row + 1 < position_ ? after_ + newest : 0.0);
    if (lane < num_rows) {
      double drafts = 0;
      for (int draft = 1; draft <= lane; ++draft) drafts += gates_.At(position_ + draft, position_ + draft);
      decays.drafts[lane] = static_cast<float>(drafts);
    }
  }

 private:
  __device__ __forceinline__ double Settled(int row) const {
    return row < position_ ? gates_.At(row, position_ - 1) : 0.0f;
  }

  RingGates gates_;
  int first_, position_;
  double odd_, after_;  // of the lane's odd row; of all after it, up to the last old row
};

// Scores of 16 rows against the warp's 16 keys become weights in shared memory; a row's sum of them goes with it.
template <typename T, int kDim>
__device__ __forceinline__ void WeighTail(const DecodeArgs& args, int group, int first, int position,
                                          TailShared<T, kDim>& shared) {
  using Shared = TailShared<T, kDim>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float scores[2][4] = {};
  const bool is_scoring = warp < Shared::kScoreWarps;
#pragma unroll
  for (int k = 0; k < (is_scoring ? kDim / 16 : 0); ++k) {
    uint32_t a[4], b[4];
    LoadMatrices(a, SharedAddress(shared.queries + lane % 16 * Shared::kStride + k * 16 + lane / 16 * 8));
    LoadMatrices(b, SharedAddress(shared.keys + (warp * 16 + lane / 16 * 8 + lane % 8) * Shared::kStride + k * 16 +
                                  lane / 8 % 2 * 8));
    Mma<T>(scores[0], a, b[0], b[1]);
    Mma<T>(scores[1], a, b[2], b[3]);
  }
  __syncthreads();  // the keys have been read by all; weights take their place
  if (!is_scoring) return;
  const int r = args.heads_q / args.heads_kv;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = g + half * 8, idx = group * kDecodeRows + row, new_row = idx / r;
    float sum = 0;
#pragma unroll
    for (int nt = 0; nt < 2; ++nt) {
      float weights[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int j = warp * 16 + nt * 8 + t * 2 + e, key = first + j;
        weights[e] = 0;
        if (new_row < args.num_rows && key <= position + new_row) {
          weights[e] =
              RaiseScore(args, scores[nt][2 * half + e]) * __expf(shared.decays.Between(j, key, new_row, position));
        }
        sum += weights[e];
      }
      const uint32_t high = Pair<T>::Pack(weights[0], weights[1]);
      const int at = row * Shared::kWeightStride + warp * 16 + nt * 8 + t * 2;
      *reinterpret_cast<uint32_t*>(shared.weights[0] + at) = high;
      *reinterpret_cast<uint32_t*>(shared.weights[1] + at) =
          Pair<T>::Pack(weights[0] - Pair<T>::Low(high), weights[1] - Pair<T>::High(high));
    }
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (t == 0) shared.denominators[warp][row] = sum;
  }
}

// Rows of one product: row group `group` of a head holds (new row, query head) pairs, new row by new row. Row `row`'s
// place among the rows of q, or -1 past the last.
__device__ __forceinline__ int64_t QueryRow(const DecodeArgs& args, int head_kv, int group, int row) {
  const int r = args.heads_q / args.heads_kv, idx = group * kDecodeRows + row;
  return idx < r * args.num_rows ? int64_t{idx / r} * args.heads_q + head_kv * r + idx % r : -1;
}

// Rows [begin, end) of the range's 64, K and V, into shared memory; rows from `last` on become zero.
template <typename T, int kDim>
__device__ __forceinline__ void LoadTail(const DecodeArgs& args, const char* slot, int head_kv, const TailRange& range,
                                         int begin, int end, int last, TailShared<T, kDim>& shared) {
  using Shared = TailShared<T, kDim>;
  constexpr int kUnits = kDim / 8;
  const int size = static_cast<int>(args.tail_rows), start = static_cast<int>(range.state_end % args.tail_rows);
  const int64_t head_row = head_kv * args.tail_rows;
  const T* keys = reinterpret_cast<const T*>(slot + args.keys) + head_row * kDim;
  const T* values = reinterpret_cast<const T*>(slot + args.values) + head_row * kDim;
  for (int unit = begin * kUnits + threadIdx.x; unit < end * kUnits; unit += kDecodeThreads) {
    const int row = unit / kUnits, column = unit % kUnits * 8;
    const int at = start + range.first + row, ring = row < last ? (at < size ? at : at - size) : 0;
    CopyAsync16(SharedAddress(shared.keys + row * Shared::kStride + column), keys + ring * kDim + column, row < last);
    CopyAsync16(SharedAddress(shared.values + row * Shared::kStride + column), values + ring * kDim + column,
                row < last);
  }
}

// The range's rows of tail.
template <typename T, int kDim>
__device__ __forceinline__ void DecodeTail(const DecodeArgs& args, const char* slot, const T* queries, int head_kv,
                                           int group, const TailRange& range, TailShared<T, kDim>& shared,
                                           const DecodePart& part) {
  using Shared = TailShared<T, kDim>;
  constexpr int kUnits = kDim / 8;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int first = range.first, position = range.position;
  const int settled = min(max(position - first, 0), kTailPart);  // the rows behind are new
  LoadTail<T, kDim>(args, slot, head_kv, range, 0, settled, settled, shared);
  const RingGates gates = {reinterpret_cast<const float*>(slot + args.gates) + head_kv * args.tail_rows,
                           static_cast<int>(range.state_end % args.tail_rows), static_cast<int>(args.tail_rows)};
  const TailGateSums gate_sums(gates, first, position);
  if (args.is_settled) WaitForResults();
  LetDependentsStart();
  LoadTail<T, kDim>(args, slot, head_kv, range, settled, kTailPart, position + args.num_rows - first, shared);
  for (int unit = threadIdx.x; unit < kDecodeRows * kUnits; unit += kDecodeThreads) {
    const int row = unit / kUnits, column = unit % kUnits * 8;
    const int64_t from = QueryRow(args, head_kv, group, row);
    CopyAsync16(SharedAddress(shared.queries + row * Shared::kStride + column),
                queries + (from < 0 ? 0 : from) * kDim + column, from >= 0);
  }
  CopyCommit();
  if (warp == 0) gate_sums.Finish(args.num_rows, shared.decays);
  CopyWait<0>();
  __syncthreads();  // rows and gate sums are there
  WeighTail<T, kDim>(args, group, first, position, shared);
  __syncthreads();  // weights are there
#pragma unroll
  for (int np = warp; np < kDim / 16; np += kDecodeWarps) {
    float sums[2][4] = {};
#pragma unroll
    for (int k = 0; k < kTailPart / 16; ++k) {
      uint32_t a[2][4], b[4];
      const int at = lane % 16 * Shared::kWeightStride + k * 16 + lane / 16 * 8;
      LoadMatrices(a[0], SharedAddress(shared.weights[0] + at));
      LoadMatrices(a[1], SharedAddress(shared.weights[1] + at));
      LoadMatricesTransposed(
          b, SharedAddress(shared.values + (k * 16 + lane % 16) * Shared::kStride + np * 16 + lane / 16 * 8));
#pragma unroll
      for (int rest = 0; rest < 2; ++rest) {
        Mma<T>(sums[0], a[rest], b[0], b[1]);
        Mma<T>(sums[1], a[rest], b[2], b[3]);
      }
    }
#pragma unroll
    for (int nt = 0; nt < 2; ++nt) {
      float* at = part.y + g * kDim + np * 16 + nt * 8 + t * 2;
      *reinterpret_cast<float2*>(at) = {sums[nt][0], sums[nt][1]};
      *reinterpret_cast<float2*>(at + 8 * kDim) = {sums[nt][2], sums[nt][3]};
    }
  }
  if (threadIdx.x < kDecodeRows) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < Shared::kScoreWarps; ++w) sum += shared.denominators[w][threadIdx.x];
    part.denominators[threadIdx.x] = sum;
  }
}

}  // namespace statehouse::kernels
