// The end of a decode step: the parts of each row added in order, one division.
#pragma once

#include <cuda_runtime.h>

#include <cfloat>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/decode_args.cuh"
#include "kernels/power_retention/cuda/decode_tail.cuh"

namespace statehouse::kernels {

// Parts [begin, end) of one row, this thread's column and the denominator.
__device__ __forceinline__ float2 AddParts(const float* y, const float* denominators, int d, int begin, int end) {
  float2 sum = {};
  constexpr int kAhead = 9;  // loads under way: a remainder one by one would wait for each
  for (int part = begin; part < end; part += kAhead) {
    float2 loaded[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      loaded[u] = {};
      if (part + u < end) {
        loaded[u].x = __ldcg(y + int64_t{part + u} * kDecodeRows * d);
        loaded[u].y = __ldcg(denominators + (part + u) * kDecodeRows);
      }
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) sum.x += loaded[u].x, sum.y += loaded[u].y;
  }
  return sum;
}

// Grid (new rows * d / kColumns, Hq, sequences), kColumns x kGroups threads: each group adds a share of the parts.
template <typename T, int kDim, int kColumns, int kGroups>
__global__ void __launch_bounds__(kColumns* kGroups) DecodeCombine(DecodeArgs args) {
  static_assert(kColumns * kGroups % 32 == 0);
  constexpr int kSlices = kDim / kColumns;
  __shared__ float sums[kGroups][kColumns + 1];
  __shared__ float state_factor;
  LetDependentsStart();
  const int new_row = blockIdx.x / kSlices, slice = blockIdx.x % kSlices, head = blockIdx.y, sequence = blockIdx.z;
  const int r = args.heads_q / args.heads_kv, head_kv = head / r, idx = new_row * r + head % r;
  const int64_t state_end = args.state_ends[sequence];
  const int position = static_cast<int>(args.positions[sequence] - state_end);
  const int parts = args.tail_parts + args.splits;
  const int used_tail = (position + args.num_rows + kTailPart - 1) / kTailPart;
  const int group = threadIdx.x / kColumns, column = threadIdx.x % kColumns;

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
  const float2 tail =
      AddParts(y_parts, denominators, kDim, used_tail * group / kGroups, used_tail * (group + 1) / kGroups);
  float2 state = {};
  if (state_end > 0) {
    state = AddParts(y_parts, denominators, kDim, args.tail_parts + args.splits * group / kGroups,
                     args.tail_parts + args.splits * (group + 1) / kGroups);
  }
  __syncthreads();  // state_factor is there
  const float factor = state_end > 0 ? state_factor : 0.0f;
  float y = fmaf(state.x, factor, tail.x), denominator = fmaf(state.y, factor, tail.y);
  if constexpr (kGroups > 1) {
    sums[group][column] = y;
    if (column == 0) sums[group][kColumns] = denominator;
    __syncthreads();  // the groups' sums are there
    if (group != 0) return;
    y = 0, denominator = 0;
#pragma unroll
    for (int other = 0; other < kGroups; ++other) {
      y += sums[other][column];
      denominator += sums[other][kColumns];
    }
  }
  const int64_t row_idx = (int64_t{sequence} * args.num_rows + new_row) * args.heads_q + head;
  static_cast<T*>(args.y)[row_idx * kDim + slice * kColumns + column] =
      T(denominator >= FLT_MIN ? y / denominator : 0.0f);
}

}  // namespace statehouse::kernels
