// The part of a decode step that answers from the tail, for fp16 and float32: all in float32, without tensor cores, so
// that no weight can overflow and none is rounded to 16 bits. A block takes 64 rows, as for bf16.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/decode_args.cuh"
#include "kernels/power_retention/cuda/decode_tail.cuh"
#include "kernels/power_retention/cuda/widen.cuh"

namespace statehouse::kernels {

template <int kDim>
struct WideTailShared {
  static constexpr int kStride = kDim + 4;  // rows' 16-byte units lie in different banks
  float queries[kDecodeRows * kStride];
  float keys[kTailPart * kStride];
  float values[kTailPart * kStride];
  float weights[kTailPart * kDecodeRows];  // [key][row]
  TailDecays decays;
  float denominators[2][kDecodeRows];  // of 32 keys each
};

template <typename T, int kDim>
using DecodeTailShared = std::conditional_t<std::is_same_v<T, bf16>, TailShared<T, kDim>, WideTailShared<kDim>>;

// Weights of 16 rows and 64 keys: a thread takes one key and four rows.
template <int kDim>
__device__ __forceinline__ void WeighWideTail(const DecodeArgs& args, int group, const TailRange& range,
                                              WideTailShared<kDim>& shared) {
  using Shared = WideTailShared<kDim>;
  constexpr int kRows = kDecodeRows / (kDecodeThreads / kTailPart);
  const int j = threadIdx.x % kTailPart, first_row = threadIdx.x / kTailPart * kRows, key = range.first + j;
  float scores[kRows] = {};
#pragma unroll 4
  for (int c = 0; c < kDim; c += 4) {
    const float4 k = *reinterpret_cast<const float4*>(shared.keys + j * Shared::kStride + c);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const float4 q = *reinterpret_cast<const float4*>(shared.queries + (first_row + row) * Shared::kStride + c);
      scores[row] += q.x * k.x + q.y * k.y + q.z * k.z + q.w * k.w;
    }
  }
  const int r = args.heads_q / args.heads_kv;
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const int new_row = (group * kDecodeRows + first_row + row) / r;
    float weight = 0;
    if (new_row < args.num_rows && key <= range.position + new_row)
      weight = RaiseScore(args, scores[row]) * __expf(shared.decays.Between(j, key, new_row, range.position));
    shared.weights[j * kDecodeRows + first_row + row] = weight;
    for (int offset = 16; offset > 0; offset /= 2) weight += __shfl_xor_sync(0xffffffffu, weight, offset);
    if (threadIdx.x % 32 == 0) shared.denominators[threadIdx.x / 32 % 2][first_row + row] = weight;
  }
}

// The range's rows of tail.
template <typename T, int kDim>
__device__ __forceinline__ void DecodeTail(const DecodeArgs& args, const char* slot, const T* queries, int head_kv,
                                           int group, const TailRange& range, WideTailShared<kDim>& shared,
                                           const DecodePart& part) {
  using Shared = WideTailShared<kDim>;
  constexpr int kUnits = kDim / 8;
  if (args.is_settled) WaitForResults();
  LetDependentsStart();
  const int size = static_cast<int>(args.tail_rows), start = static_cast<int>(range.state_end % args.tail_rows);
  const int64_t head_row = head_kv * args.tail_rows;
  const T* keys = reinterpret_cast<const T*>(slot + args.keys) + head_row * kDim;
  const T* values = reinterpret_cast<const T*>(slot + args.values) + head_row * kDim;
  const int last = range.position + args.num_rows - range.first;
  for (int unit = threadIdx.x; unit < kTailPart * kUnits; unit += kDecodeThreads) {
    const int row = unit / kUnits, column = unit % kUnits * 8, at = start + range.first + row;
    const int64_t ring = at < size ? at : at - size;
    WidenUnit(shared.keys + row * Shared::kStride + column, row < last ? keys + ring * kDim + column : nullptr);
    WidenUnit(shared.values + row * Shared::kStride + column, row < last ? values + ring * kDim + column : nullptr);
  }
  for (int unit = threadIdx.x; unit < kDecodeRows * kUnits; unit += kDecodeThreads) {
    const int row = unit / kUnits, column = unit % kUnits * 8;
    const int64_t from = QueryRow(args, head_kv, group, row);
    WidenUnit(shared.queries + row * Shared::kStride + column, from < 0 ? nullptr : queries + from * kDim + column);
  }
  const RingGates gates = {reinterpret_cast<const float*>(slot + args.gates) + head_row, start, size};
  if (threadIdx.x < 32) TailGateSums(gates, range.first, range.position).Finish(args.num_rows, shared.decays);
  __syncthreads();  // rows and gate sums are there
  WeighWideTail<kDim>(args, group, range, shared);
  __syncthreads();                  // weights are there
  constexpr int kRows = kDim / 16;  // of a thread, which takes one column
  const int column = threadIdx.x % kDim, first_row = threadIdx.x / kDim * kRows;
  float sums[kRows] = {};
#pragma unroll 4
  for (int j = 0; j < kTailPart; ++j) {
    const float v = shared.values[j * Shared::kStride + column];
#pragma unroll
    for (int row = 0; row < kRows; ++row) sums[row] += shared.weights[j * kDecodeRows + first_row + row] * v;
  }
#pragma unroll
  for (int row = 0; row < kRows; ++row) part.y[(first_row + row) * kDim + column] = sums[row];
  if (threadIdx.x < kDecodeRows)
    part.denominators[threadIdx.x] = shared.denominators[0][threadIdx.x] + shared.denominators[1][threadIdx.x];
}

}  // namespace statehouse::kernels
