// A decode step, bound by reading the state once.
//
// Query heads that share a key/value head, times the new rows, are the rows of a matrix product against the state, 16
// at a time. DecodeParts: thread blocks split the tiles of the state, and 64 rows of tail each; every block writes its
// sum. DecodeCombine adds the parts in order and divides.
//
// State elements go from device memory straight into the right operand of m16n8k8 products: a lane reads kVector
// neighbours of a row, and column n of product e stands for column kVector n + e. A float32 state is split into two
// tf32 numbers, and so is φ(q): three products, the precision of float32. A bf16 state is a tf32 number as it is. The
// tail goes through bf16 or fp16 products; its weights as two numbers each.
//   shared: q [16][d] in float32 and the warps' sums [16][d + 1]; or q, 64 rows of K and of V, weights
#pragma once

#include <cuda_runtime.h>

#include <cfloat>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/decode_args.cuh"
#include "kernels/power_retention/cuda/decode_tail.cuh"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

// kVector neighbours of one row of the state.
template <typename S, int kVector>
struct StateVector {
  uint32_t words[kVector * sizeof(S) / 4];

  __device__ __forceinline__ void Load(const S* at) {
    if constexpr (sizeof(words) == 16) {
      *reinterpret_cast<uint4*>(words) = __ldcs(reinterpret_cast<const uint4*>(at));
    } else if constexpr (sizeof(words) == 8) {
      *reinterpret_cast<uint2*>(words) = __ldcs(reinterpret_cast<const uint2*>(at));
    } else {
      words[0] = __ldcs(reinterpret_cast<const uint32_t*>(at));
    }
  }
  __device__ __forceinline__ uint32_t Bits(int e) const {
    if constexpr (sizeof(S) == 4) return words[e];
    return e % 2 == 0 ? words[e / 2] << 16 : words[e / 2] & 0xffff0000u;
  }
};

template <typename S, int kDim>
struct DecodeTiles {
  static constexpr int kBlocks = kDim / 8;
  static constexpr int kTiles = kBlocks * (kBlocks + 1) / 2;
  static constexpr int kColumns = kDim < 64 ? kDim : 64;  // of one warp
  static constexpr int kColumnWarps = kDim / kColumns;
  static constexpr int kRowWarps = kDecodeWarps / kColumnWarps;
  static constexpr int kSteps = 8 / kRowWarps;  // rows i of a tile that one warp takes
  static constexpr int kVector =
      kDim / 8 < 16 / static_cast<int>(sizeof(S)) ? kDim / 8 : 16 / static_cast<int>(sizeof(S));
  static constexpr int kGroups = kColumns / (8 * kVector);  // vectors of a lane per row
  static constexpr int kQueryStride = kDim + 4;
};

__device__ __forceinline__ uint32_t Tf32High(float x) { return __float_as_uint(x) & 0xffffe000u; }

// What a warp adds up over the state.
template <typename S, int kDim>
struct DecodeSums {
  float y[DecodeTiles<S, kDim>::kGroups][DecodeTiles<S, kDim>::kVector][4] = {};
  float denominator[2] = {};
};

// 8 rows of the state, pairs (i, 8J … 8J+7).
template <typename S, int kDim>
__device__ __forceinline__ void DecodeStep(
    const float (&phi)[4],
    const StateVector<S, DecodeTiles<S, kDim>::kVector> (&low_rows)[DecodeTiles<S, kDim>::kGroups],
    const StateVector<S, DecodeTiles<S, kDim>::kVector> (&high_rows)[DecodeTiles<S, kDim>::kGroups],
    DecodeSums<S, kDim>& sums) {
  using Tiles = DecodeTiles<S, kDim>;
  uint32_t a[4], a_rest[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    a[r] = Tf32High(phi[r]);
    a_rest[r] = __float_as_uint(phi[r] - __uint_as_float(a[r]));
  }
  // One kind of product after the other: those of one sum would wait for each other.
  const auto multiply = [&](const uint32_t(&left)[4], const auto& right) {
#pragma unroll
    for (int group = 0; group < Tiles::kGroups; ++group) {
#pragma unroll
      for (int e = 0; e < Tiles::kVector; ++e)
        MmaTf32(sums.y[group][e], left, right(low_rows[group].Bits(e)), right(high_rows[group].Bits(e)));
    }
  };
  const auto high = [](uint32_t bits) { return sizeof(S) == 4 ? bits & 0xffffe000u : bits; };
  const auto rest = [](uint32_t bits) {
    return __float_as_uint(__uint_as_float(bits) - __uint_as_float(bits & 0xffffe000u));
  };
  multiply(a, high);
  multiply(a_rest, high);
  if constexpr (sizeof(S) == 4) multiply(a, rest);
}

// One step of a warp, in registers: 8 rows of the state and of z.
template <typename S, int kDim>
struct DecodeRows {
  using Tiles = DecodeTiles<S, kDim>;
  StateVector<S, Tiles::kVector> rows[2][Tiles::kGroups];
  float normalizers[2];

  // Step n of the warp, counted from `first_row`, the warp's first row of the block's first tile.
  __device__ __forceinline__ void Load(const S* state, const float* z, int first_row, int n) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + n / Tiles::kSteps * 64 + n % Tiles::kSteps * 8 + half * 4 + t;
#pragma unroll
      for (int group = 0; group < Tiles::kGroups; ++group)
        rows[half][group].Load(state + int64_t{row} * kDim + (group * 8 + g) * Tiles::kVector);
      normalizers[half] = z[row];
    }
  }
};

// Adds tiles [first, first + count). The first two steps are in `even` and `odd` already; the step after next is asked
// for as soon as its registers are free.
template <typename S, int kDim>
__device__ __forceinline__ void DecodeState(const float* queries, const S* state, const float* z, int first, int count,
                                            int first_row, int row_warp, DecodeRows<S, kDim>& even,
                                            DecodeRows<S, kDim>& odd, DecodeSums<S, kDim>& sums) {
  using Tiles = DecodeTiles<S, kDim>;
  constexpr int kLower = 8 * Tiles::kQueryStride;  // to row g + 8
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, num_steps = count * Tiles::kSteps;
  TilePosition at = TileAt<Tiles::kBlocks>(first);
  const auto add = [&](int n, DecodeRows<S, kDim>& rows) {
    const float factor = at.I < at.J ? 2.0f : 1.0f;
    const float* qj = queries + g * Tiles::kQueryStride + at.J * 8 + t;
    const float* qi = queries + g * Tiles::kQueryStride + at.I * 8 + row_warp * Tiles::kSteps + n % Tiles::kSteps;
    const float upper = factor * qi[0], lower = factor * qi[kLower];
    const float phi[4] = {upper * qj[0], lower * qj[kLower], upper * qj[4], lower * qj[kLower + 4]};
    sums.denominator[0] += phi[0] * rows.normalizers[0] + phi[2] * rows.normalizers[1];
    sums.denominator[1] += phi[1] * rows.normalizers[0] + phi[3] * rows.normalizers[1];
    DecodeStep<S, kDim>(phi, rows.rows[0], rows.rows[1], sums);
    if (n + 2 < num_steps) rows.Load(state, z, first_row, n + 2);
    if (n % Tiles::kSteps == Tiles::kSteps - 1 && ++at.J == Tiles::kBlocks) at.J = ++at.I;
  };
#pragma unroll 1
  for (int n = 0; n < num_steps; n += 2) {
    add(n, even);
    if (n + 1 < num_steps) add(n + 1, odd);
  }
}

// Adds the warps' sums in order and writes the block's part.
template <typename S, int kDim>
__device__ __forceinline__ void StoreStatePart(float* shared, DecodeSums<S, kDim>& sums, float* part,
                                               float* denominators) {
  using Tiles = DecodeTiles<S, kDim>;
  constexpr int kStride = kDim + 4;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int row_warp = warp / Tiles::kColumnWarps, column_warp = warp % Tiles::kColumnWarps;
  float* own = shared + row_warp * kDecodeRows * kStride;
#pragma unroll
  for (int group = 0; group < Tiles::kGroups; ++group) {
#pragma unroll
    for (int e = 0; e < Tiles::kVector; ++e) {
#pragma unroll
      for (int r = 0; r < 4; ++r)
        own[(g + r / 2 * 8) * kStride + column_warp * Tiles::kColumns + (group * 8 + 2 * t + r % 2) * Tiles::kVector +
            e] = sums.y[group][e][r];
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = sums.denominator[half];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (t == 0 && column_warp == 0) own[(g + half * 8) * kStride + kDim] = sum;
  }
  __syncthreads();
  for (int at = threadIdx.x; at < kDecodeRows * (kDim + 1); at += kDecodeThreads) {
    const int row = at / (kDim + 1), column = at % (kDim + 1);
    float sum = 0;
#pragma unroll
    for (int w = 0; w < Tiles::kRowWarps; ++w) sum += shared[(w * kDecodeRows + row) * kStride + column];
    if (column == kDim) {
      denominators[row] = sum;
    } else {
      part[row * kDim + column] = sum;
    }
  }
}

// Rows of one product: row group `group` of a head holds (new row, query head) pairs, new row by new row.
struct DecodeRow {
  int new_row, head;
  bool is_valid;
};
__device__ __forceinline__ DecodeRow RowOf(const DecodeArgs& args, int head_kv, int group, int row) {
  const int r = args.heads_q / args.heads_kv, idx = group * kDecodeRows + row;
  return {idx / r, head_kv * r + idx % r, idx < r * args.num_rows};
}

// The rows of one product in float32; rows past the last are zero.
template <typename T, int kDim>
__device__ __forceinline__ void LoadQueries(const DecodeArgs& args, const T* queries, int head_kv, int group,
                                            float* shared) {
  constexpr int kUnits = kDim / 8, kStride = kDim + 4;
  const int r = args.heads_q / args.heads_kv;
  for (int unit = threadIdx.x; unit < kDecodeRows * kUnits; unit += kDecodeThreads) {
    const int row = unit / kUnits, column = unit % kUnits * 8, idx = group * kDecodeRows + row;
    uint4 q = {};
    if (idx < r * args.num_rows) {
      const int64_t from = int64_t{idx / r} * args.heads_q + head_kv * r + idx % r;
      q = *reinterpret_cast<const uint4*>(queries + from * kDim + column);
    }
    float4* at = reinterpret_cast<float4*>(shared + row * kStride + column);
    at[0] = {Pair<T>::Low(q.x), Pair<T>::High(q.x), Pair<T>::Low(q.y), Pair<T>::High(q.y)};
    at[1] = {Pair<T>::Low(q.z), Pair<T>::High(q.z), Pair<T>::Low(q.w), Pair<T>::High(q.w)};
  }
}

// Grid (tail_parts + splits, Hk, sequences * row_groups).
template <typename T, typename S, int kDim>
__global__ void __launch_bounds__(kDecodeThreads) DecodeParts(DecodeArgs args) {
  using Tiles = DecodeTiles<S, kDim>;
  constexpr int kQueryBytes = kDecodeRows * Tiles::kQueryStride * 4;
  constexpr int kStateBytes = kQueryBytes + Tiles::kRowWarps * kDecodeRows * (kDim + 4) * 4;
  constexpr int kTailBytes = sizeof(TailShared<T, kDim>);
  __shared__ __align__(16) char shared[kStateBytes > kTailBytes ? kStateBytes : kTailBytes];
  LetDependentsStart();
  const int part = blockIdx.x, head_kv = blockIdx.y;
  const int sequence = blockIdx.z / args.row_groups, group = blockIdx.z % args.row_groups;
  const char* slot = args.slots[sequence];
  const int64_t state_end = args.state_ends[sequence];
  const int position = static_cast<int>(args.positions[sequence] - state_end);
  const T* queries = static_cast<const T*>(args.q) + int64_t{sequence} * args.num_rows * args.heads_q * kDim;
  const int64_t part_idx =
      ((int64_t{sequence} * args.heads_kv + head_kv) * args.row_groups + group) * (args.tail_parts + args.splits) +
      part;
  float* out = args.parts + part_idx * kDecodeRows * kDim;
  float* denominators = args.denominators + part_idx * kDecodeRows;

  if (part < args.tail_parts) {
    if (part * kTailPart >= position + args.num_rows) return;  // DecodeCombine knows
    DecodeTail<T, kDim>(args, slot, queries, head_kv, group, state_end, part * kTailPart, position,
                        *reinterpret_cast<TailShared<T, kDim>*>(shared), out, denominators);
    return;
  }
  if (state_end == 0) return;  // DecodeCombine knows
  const int split = part - args.tail_parts;
  const int first = Tiles::kTiles * split / args.splits, last = Tiles::kTiles * (split + 1) / args.splits;
  constexpr int64_t kRows = RetentionStateRows(kDim);
  const S* state = reinterpret_cast<const S*>(slot) + head_kv * kRows * kDim;
  const float* z = reinterpret_cast<const float*>(slot + args.normalizer) + head_kv * kRows;
  const int warp = threadIdx.x / 32, row_warp = warp / Tiles::kColumnWarps;
  const int first_row = first * 64 + row_warp * Tiles::kSteps * 8;
  state += warp % Tiles::kColumnWarps * Tiles::kColumns;
  DecodeRows<S, kDim> even, odd;
  even.Load(state, z, first_row, 0);
  if ((last - first) * Tiles::kSteps > 1) odd.Load(state, z, first_row, 1);
  float* rows = reinterpret_cast<float*>(shared);
  LoadQueries<T, kDim>(args, queries, head_kv, group, rows);
  __syncthreads();
  DecodeSums<S, kDim> sums;
  DecodeState<S, kDim>(rows, state, z, first, last - first, first_row, row_warp, even, odd, sums);
  StoreStatePart<S, kDim>(reinterpret_cast<float*>(shared + kQueryBytes), sums, out, denominators);
}

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

// Grid (new rows, Hq, sequences), d x kCombineGroups threads: each group adds a share of the parts.
template <typename T, int kDim>
__global__ void __launch_bounds__(kDim* kCombineGroups) DecodeCombine(DecodeArgs args) {
  __shared__ float sums[kCombineGroups][kDim + 1];
  __shared__ float state_factor;
  const int new_row = blockIdx.x, head = blockIdx.y, sequence = blockIdx.z;
  const int r = args.heads_q / args.heads_kv, head_kv = head / r, idx = new_row * r + head % r;
  const int64_t state_end = args.state_ends[sequence];
  const int position = static_cast<int>(args.positions[sequence] - state_end);
  const int parts = args.tail_parts + args.splits;
  const int used_tail = (position + args.num_rows + kTailPart - 1) / kTailPart;
  const int group = threadIdx.x / kDim, column = threadIdx.x % kDim;

  if (threadIdx.x < 32) {
    const RingGates gates = {
        reinterpret_cast<const float*>(args.slots[sequence] + args.gates) + head_kv * args.tail_rows,
        static_cast<int>(state_end % args.tail_rows), static_cast<int>(args.tail_rows)};
    const double sum = gates.Sum(0, position + new_row);
    if (threadIdx.x == 0) state_factor = args.scale_squared * __expf(static_cast<float>(sum));
  }
  WaitForResults();
  const int64_t base = ((int64_t{sequence} * args.heads_kv + head_kv) * args.row_groups + idx / kDecodeRows) * parts;
  const int row = idx % kDecodeRows;
  const float* y_parts = args.parts + (base * kDecodeRows + row) * kDim + column;
  const float* denominators = args.denominators + base * kDecodeRows + row;
  const float2 tail = AddParts(y_parts, denominators, kDim, used_tail * group / kCombineGroups,
                               used_tail * (group + 1) / kCombineGroups);
  float2 state = {};
  if (state_end > 0) {
    state = AddParts(y_parts, denominators, kDim, args.tail_parts + args.splits * group / kCombineGroups,
                     args.tail_parts + args.splits * (group + 1) / kCombineGroups);
  }
  __syncthreads();  // state_factor is there
  sums[group][column] = fmaf(state.x, state_factor, tail.x);
  if (column == 0) sums[group][kDim] = fmaf(state.y, state_factor, tail.y);
  __syncthreads();
  if (group != 0) return;
  float y = 0, denominator = 0;
#pragma unroll
  for (int other = 0; other < kCombineGroups; ++other) {
    y += sums[other][column];
    denominator += sums[other][kDim];
  }
  const int64_t row_idx = (int64_t{sequence} * args.num_rows + new_row) * args.heads_q + head;
  static_cast<T*>(args.y)[row_idx * kDim + column] = T(denominator >= FLT_MIN ? y / denominator : 0.0f);
}

}  // namespace statehouse::kernels
