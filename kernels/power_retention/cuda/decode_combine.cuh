// The end of a decode step: the parts of each row added in order, one division.
#pragma once

#include <cuda_runtime.h>

#include <cfloat>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/decode_args.cuh"
#include "kernels/power_retention/cuda/decode_tail.cuh"
#include "kernels/power_retention/cuda/widen.cuh"

namespace statehouse::kernels {

// What a thread adds up: kVector columns of one row and its denominator.
template <int kVector>
struct CombinedSums {
  Neighbours<float, kVector> y = {};
  float denominator = 0;
};

// Parts [begin, end). kAhead loads are under way: a remainder one by one would wait for each.
template <int kVector>
__device__ __forceinline__ CombinedSums<kVector> AddParts(const float* y, const float* denominators, int d, int begin,
                                                          int end) {
  static_assert(kVector <= 2);
  constexpr int kAhead = 9;
  CombinedSums<kVector> sum;
  for (int part = begin; part < end; part += kAhead) {
    CombinedSums<kVector> loaded[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (part + u < end) {
        const float* from = y + int64_t{part + u} * kDecodeRows * d;
        if constexpr (kVector == 2) {
          const float2 both = __ldcg(reinterpret_cast<const float2*>(from));
          loaded[u].y.x[0] = both.x, loaded[u].y.x[1] = both.y;
        } else {
          loaded[u].y.x[0] = __ldcg(from);
        }
        loaded[u].denominator = __ldcg(denominators + (part + u) * kDecodeRows);
      }
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
#pragma unroll
      for (int c = 0; c < kVector; ++c) sum.y.x[c] += loaded[u].y.x[c];
      sum.denominator += loaded[u].denominator;
    }
  }
  return sum;
}

// Grid (new rows * kSlices, Hq, sequences). A block has d / kSlices columns of one row, kVector per thread, and kGroups
// groups of threads that add a share of the parts each.
template <typename T, int kDim, int kSlices, int kVector, int kGroups>
__global__ void __launch_bounds__(kDim / kSlices / kVector * kGroups) DecodeCombine(DecodeArgs args) {
  constexpr int kColumns = kDim / kSlices, kThreads = kColumns / kVector;  // of a group
  static_assert(kThreads * kGroups % 32 == 0);
  __shared__ float sums[kGroups][kColumns + 1];
  __shared__ float state_factor;
  LetDependentsStart();
  const int new_row = blockIdx.x / kSlices, slice = blockIdx.x % kSlices, head = blockIdx.y, sequence = blockIdx.z;
  const int r = args.heads_q / args.heads_kv, head_kv = head / r, idx = new_row * r + head % r;
  const int64_t state_end = args.state_ends[sequence];
  const int position = static_cast<int>(args.positions[sequence] - state_end);
  const int parts = args.tail_parts + args.splits;
  const int used_tail = (position + args.num_rows + kTailPart - 1) / kTailPart;
  const int group = threadIdx.x / kThreads, column = threadIdx.x % kThreads * kVector;

  if (threadIdx.x < 32 && state_end > 0) {
    const RingGates gates = {
        reinterpret_cast<const float*>(args.slots[sequence] + args.gates) + head_kv * args.tail_rows,
        static_cast<int>(state_end % args.tail_rows), static_cast<int>(args.tail_rows)};
    const double sum = gates.Sum(0, position + new_row);
    if (threadIdx.x == 0) state_factor = args.scale_squared * __expf(static_cast<float>(sum));
  }
  WaitForResults();
  const int64_t base = ((int64_t{sequence} * args.heads_kv + head_kv) * args.row_groups + idx / kDecodeRows) * parts;
  const int row = idx % kDecodeRows;
  const float* y_parts = args.parts + (base * kDecodeRows + row) * kDim + slice * kColumns + column;
  const float* denominators = args.denominators + base * kDecodeRows + row;
  CombinedSums<kVector> sum =
      AddParts<kVector>(y_parts, denominators, kDim, used_tail * group / kGroups, used_tail * (group + 1) / kGroups);
  if (state_end > 0) {
    const CombinedSums<kVector> state =
        AddParts<kVector>(y_parts, denominators, kDim, args.tail_parts + args.splits * group / kGroups,
                          args.tail_parts + args.splits * (group + 1) / kGroups);
    __syncthreads();  // state_factor is there
#pragma unroll
    for (int c = 0; c < kVector; ++c) sum.y.x[c] = fmaf(state.y.x[c], state_factor, sum.y.x[c]);
    sum.denominator = fmaf(state.denominator, state_factor, sum.denominator);
  }
  if constexpr (kGroups > 1) {
#pragma unroll
    for (int c = 0; c < kVector; ++c) sums[group][column + c] = sum.y.x[c];
    if (column == 0) sums[group][kColumns] = sum.denominator;
    __syncthreads();  // the groups' sums are there
    if (group != 0) return;
    sum = {};
#pragma unroll
    for (int other = 0; other < kGroups; ++other) {
#pragma unroll
      for (int c = 0; c < kVector; ++c) sum.y.x[c] += sums[other][column + c];
      sum.denominator += sums[other][kColumns];
    }
  }
  Neighbours<T, kVector> y;
#pragma unroll
  for (int c = 0; c < kVector; ++c) y.x[c] = T(sum.denominator >= FLT_MIN ? sum.y.x[c] / sum.denominator : 0.0f);
  const int64_t row_idx = (int64_t{sequence} * args.num_rows + new_row) * args.heads_q + head;
  *reinterpret_cast<Neighbours<T, kVector>*>(static_cast<T*>(args.y) + row_idx * kDim + slice * kColumns + column) = y;
}

}  // namespace statehouse::kernels
