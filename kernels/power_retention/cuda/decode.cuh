// A decode step, bound by reading the state once.
//
// Query heads that share a key/value head, times the new rows, are the rows of a matrix product against the state, 16
// at a time. DecodeParts: thread blocks split the state (decode_state.cuh) and take 64 rows of tail each
// (decode_tail.cuh, decode_tail_wide.cuh); every block writes its sum. DecodeCombine (decode_combine.cuh) adds the
// parts in order and divides.
#pragma once

#include <cuda_runtime.h>

#include "kernels/power_retention/cuda/decode_args.cuh"
#include "kernels/power_retention/cuda/decode_state.cuh"
#include "kernels/power_retention/cuda/decode_tail.cuh"
#include "kernels/power_retention/cuda/decode_tail_wide.cuh"
#include "kernels/power_retention/cuda/retention.h"
#include "kernels/power_retention/cuda/widen.cuh"

namespace statehouse::kernels {

// The rows of one product in float32; rows past the last are zero.
template <typename T, int kDim>
__device__ __forceinline__ void LoadQueries(const DecodeArgs& args, const T* queries, int head_kv, int group,
                                            float* shared) {
  constexpr int kUnits = kDim / 8, kStride = kDim + 4;
#pragma unroll 1
  for (int unit = threadIdx.x; unit < kDecodeRows * kUnits; unit += kDecodeThreads) {
    const int row = unit / kUnits, column = unit % kUnits * 8;
    const int64_t from = QueryRow(args, head_kv, group, row);
    float q[8] = {};
    if (from >= 0) LoadEight(q, queries + from * kDim + column);
    float4* at = reinterpret_cast<float4*>(shared + row * kStride + column);
    at[0] = {q[0], q[1], q[2], q[3]};
    at[1] = {q[4], q[5], q[6], q[7]};
  }
}

// What a block of DecodeParts needs of shared memory.
template <typename T, typename S, int kDim>
constexpr int DecodeSharedBytes() {
  constexpr int kState = DecodeTiles<S, kDim>::kSharedBytes, kTail = sizeof(DecodeTailShared<T, kDim>);
  return kState > kTail ? kState : kTail;
}

// Grid (tail_parts + splits, Hk, sequences * row_groups).
template <typename T, typename S, int kDim>
__global__ void __launch_bounds__(kDecodeThreads, 2) DecodeParts(DecodeArgs args) {
  using Tiles = DecodeTiles<S, kDim>;
  extern __shared__ __align__(16) char shared[];
  if (!args.is_settled) WaitForResults();
  const int part = blockIdx.x, head_kv = blockIdx.y;
  const int sequence = blockIdx.z / args.row_groups, group = blockIdx.z % args.row_groups;
  const char* slot = args.slots[sequence];
  const int64_t state_end = args.state_ends[sequence];
  const T* queries = static_cast<const T*>(args.q) + int64_t{sequence} * args.num_rows * args.heads_q * kDim;
  if (part < args.tail_parts) {
    const TailRange range = {state_end, part * kTailPart, static_cast<int>(args.positions[sequence] - state_end)};
    if (range.first < range.position + args.num_rows) {  // otherwise there is nothing, as DecodeCombine knows
      DecodeTail<T, kDim>(args, slot, queries, head_kv, group, range,
                          *reinterpret_cast<DecodeTailShared<T, kDim>*>(shared), PartOfBlock(args, kDim));
    }
    return;
  }
  if (state_end == 0) return;  // DecodeCombine knows
  const int split = part - args.tail_parts;
  constexpr int64_t kRows = RetentionStateRows(kDim);
  char* ring = shared + Tiles::kQueryBytes;
  StateReader<S, kDim> reader(reinterpret_cast<const S*>(slot) + head_kv * kRows * kDim,
                              reinterpret_cast<const float*>(slot + args.normalizer) + head_kv * kRows,
                              reinterpret_cast<const bf16*>(slot + args.scales) + head_kv * kRows / kScaleRows,
                              Tiles::kTotalStages * split / args.splits,
                              Tiles::kTotalStages * (split + 1) / args.splits,
                              ring + static_cast<int>(threadIdx.x) / 32 * Tiles::kRingBytes);
  reader.Start();
  if (args.is_settled) WaitForResults();
  LetDependentsStart();
  float* rows = reinterpret_cast<float*>(shared);
  LoadQueries<T, kDim>(args, queries, head_kv, group, rows);
  __syncthreads();  // the queries are there
  DecodeSums<kDim> sums;
  reader.template Add<!std::is_same_v<T, bf16>>(rows, sums);
  __syncthreads();  // sums may take the rings' place
  const int num_rows = min(kDecodeRows, args.heads_q / args.heads_kv * args.num_rows - group * kDecodeRows);
  StoreStatePart<S, kDim>(reinterpret_cast<float*>(ring), sums, num_rows, PartOfBlock(args, kDim));
}

}  // namespace statehouse::kernels
