// Slots of degree 4 with a state (d <= 32), in float32 arithmetic: what decoding takes from the state, and the fold of
// a tail into it. The tail answers as that of degree 2 does.
#pragma once

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/decode_launch.cuh"
#include "kernels/power_retention/cuda/fourth_fold.cuh"
#include "kernels/power_retention/cuda/tail_fold.cuh"

namespace statehouse::kernels {

template <int kDim>
struct FourthDecodeShared {
  float queries[kDecodeRows][kDim];
  float tile[kFourthTile][kDim];
  float phi[kFourthTile][kDecodeRows];
  uchar4 at[kFourthTile];
  float z[kFourthTile];
};

// A block takes every splits-th tile of 64 rows of the state, a thread one of 16 query rows and d/16 columns.
// Grid (splits, Hk, sequences * row_groups).
template <typename T, int kDim>
__global__ void __launch_bounds__(kDecodeThreads) DecodeFourthState(DecodeArgs args) {
  constexpr int kColumns = kDim / 16;
  __shared__ __align__(16) FourthDecodeShared<kDim> shared;
  const int head_kv = blockIdx.y, sequence = blockIdx.z / args.row_groups, group = blockIdx.z % args.row_groups;
  if (args.state_ends[sequence] == 0) return;  // DecodeCombine knows
  const char* slot = args.slots[sequence];
  const float* state = reinterpret_cast<const float*>(slot) + int64_t{head_kv} * kFourthRows<kDim> * kDim;
  const float* z = reinterpret_cast<const float*>(slot + args.normalizer) + int64_t{head_kv} * kFourthRows<kDim>;
  const T* queries = static_cast<const T*>(args.q) + int64_t{sequence} * args.num_rows * args.heads_q * kDim;
  for (int unit = threadIdx.x; unit < kDecodeRows * (kDim / 8); unit += kDecodeThreads) {
    const int row = unit / (kDim / 8), column = unit % (kDim / 8) * 8;
    const int64_t from = QueryRow(args, head_kv, group, row);
    WidenUnit(shared.queries[row] + column, from < 0 ? nullptr : queries + from * kDim + column);
  }
  const int row = threadIdx.x % kDecodeRows, column = threadIdx.x / kDecodeRows * kColumns;
  float y[kColumns] = {}, denominator = 0;
  for (int tile = blockIdx.x; tile < kFourthTiles<kDim>; tile += gridDim.x) {
    const int first = tile * kFourthTile;
    __syncthreads();  // the queries are there, and all are done with the tile before
    if (threadIdx.x < kFourthTile) {
      const int own = first + static_cast<int>(threadIdx.x);
      const bool is_valid = own < kFourthRows<kDim>;
      shared.at[threadIdx.x] = is_valid ? FourthAt<kDim>(own).at : uchar4{};
      shared.z[threadIdx.x] = is_valid ? z[own] : 0.0f;
    }
    for (int unit = threadIdx.x; unit < kFourthTile * kDim / 4; unit += kDecodeThreads) {
      const bool is_valid = first + unit / (kDim / 4) < kFourthRows<kDim>;
      reinterpret_cast<float4*>(shared.tile[0])[unit] =
          is_valid ? __ldcs(reinterpret_cast<const float4*>(state) + int64_t{first} * (kDim / 4) + unit) : float4{};
    }
    __syncthreads();  // the tile is there
    for (int unit = threadIdx.x; unit < kFourthTile * kDecodeRows; unit += kDecodeThreads) {
      const uchar4 at = shared.at[unit / kDecodeRows];
      const float* q = shared.queries[unit % kDecodeRows];
      shared.phi[0][unit] = q[at.x] * q[at.y] * (q[at.z] * q[at.w]);
    }
    __syncthreads();  // φ(q) is there
#pragma unroll 4
    for (int m = 0; m < kFourthTile; ++m) {
      const float phi = shared.phi[m][row];
      denominator = fmaf(phi, shared.z[m], denominator);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) y[c] = fmaf(phi, shared.tile[m][column + c], y[c]);
    }
  }
  const DecodePart part = PartOfBlock(args, kDim);  // of a grid without the tail's parts
  const int64_t before = int64_t{args.tail_parts} * kDecodeRows;
#pragma unroll
  for (int c = 0; c < kColumns; ++c)
    part.y[(before + row) * kDim + column + c] = args.scale_squared * y[c];  // DecodeCombine gives the other square
  if (column == 0) part.denominators[before + row] = args.scale_squared * denominator;
}

template <typename T, int kDim>
absl::Status QueueDecodeFourth(const DecodeArgs& args, int num_sequences, cudaStream_t stream) {
  constexpr int kBytes = DecodeSharedBytes<T, float, kDim>();
  if (absl::Status status = AllowShared(DecodeParts<T, float, kDim>, kBytes); !status.ok()) return status;
  const unsigned heads = args.heads_kv, groups = num_sequences * args.row_groups;
  const LaunchConfig tail(dim3(args.tail_parts, heads, groups), kDecodeThreads, kBytes, stream, false);
  const absl::Status status =
      CudaStatus(cudaLaunchKernelEx(tail.get(), DecodeParts<T, float, kDim>, args), "DecodeParts");
  if (!status.ok()) return status;
  DecodeFourthState<T, kDim><<<dim3(args.splits, heads, groups), kDecodeThreads, 0, stream>>>(args);
  if (absl::Status launched = LaunchStatus("DecodeFourthState"); !launched.ok()) return launched;
  return QueueCombine<T, kDim, 1, 1, 8>(args, num_sequences, stream);
}

template <int kDim>
struct FourthTailShared {
  TailFoldShared<kDim> gates;
  alignas(16) FourthFoldShared<kDim> rows;
};

// As FoldTail(). Grid (kFourthTiles, Hk, sequences).
template <typename T, int kDim>
__global__ void __launch_bounds__(kFourthThreads) FoldTailFourth(TailFoldArgs args) {
  __shared__ __align__(16) FourthTailShared<kDim> shared;
  const int h = blockIdx.y, row = blockIdx.x * kFourthTile + FourthFoldSums<kDim>::Row();
  const Fourth fourth = FourthAt<kDim>(min(row, kFourthRows<kDim> - 1));
  char* slot = args.slots[blockIdx.z];
  const int64_t state_end = args.state_ends[blockIdx.z], head_row = h * args.tail_rows;
  const int size = static_cast<int>(args.tail_rows), start = static_cast<int>(state_end % args.tail_rows);
  const RingGates gates = {reinterpret_cast<const float*>(slot + args.gates) + head_row, start, size};
  if (threadIdx.x == 0) shared.gates.later = 0;
  FourthFoldSums<kDim> sums;
  for (int batch = (args.rows - 1) / kWideFoldBatch * kWideFoldBatch; batch >= 0; batch -= kWideFoldBatch) {
    __syncthreads();  // all are done with the weights before
    if (threadIdx.x < 32) WeighBatch<kDim>(gates, batch, args.rows, shared.gates);
    for (int part = 0; part < kWideFoldBatch; part += kFourthBatch) {
      __syncthreads();  // weights are there, and all are done with the rows before
      LoadFourthBatch<T, kDim>(
          reinterpret_cast<const T*>(slot + args.keys), reinterpret_cast<const T*>(slot + args.values),
          [&](int token) {
            const int in_chunk = batch + part + token, place = start + in_chunk;
            return in_chunk < args.rows ? head_row + (place < size ? place : place - size) : int64_t{-1};
          },
          [&](int token) {
            return float2{shared.gates.batch.weights[part + token], 1.0f};
          },
          shared.rows);
      __syncthreads();  // the rows are there
      sums.Add(fourth.at, shared.rows);
    }
  }
  __syncthreads();  // all gates are added up
  if (row >= kFourthRows<kDim>) return;
  const float total = static_cast<float>(shared.gates.later);
  const StateUpdate update = {expf(total), expm1f(total), {}, {}};
  const int64_t at = int64_t{h} * kFourthRows<kDim> + row;
  float* state = reinterpret_cast<float*>(slot) + at * kDim + sums.Column();
#pragma unroll
  for (int c = 0; c < sums.kColumns; ++c) state[c] = Updated(state[c], fourth.count * sums.S[c], update);
  float* z = reinterpret_cast<float*>(slot + args.normalizer) + at;
  if (sums.Column() == 0) *z = Updated(*z, fourth.count * sums.z, update);
}

template <typename T, int kDim>
absl::Status QueueFoldTailFourth(const TailFoldArgs& args, int heads_kv, int num_sequences, cudaStream_t stream) {
  FoldTailFourth<T, kDim><<<dim3(kFourthTiles<kDim>, heads_kv, num_sequences), kFourthThreads, 0, stream>>>(args);
  return LaunchStatus("FoldTailFourth");
}

}  // namespace statehouse::kernels
