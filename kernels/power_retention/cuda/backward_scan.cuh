// Gradients of states, against the order of the sequence:
//   suffix[n] = dS, dS = decay[n] dS + local[n]               (ScanGradients)
// where local[n] is what the chunk's own rows give, and what crosses a chunk altogether: <dS after it, S before it>
// (MultiplyBorders). The gradient by an element of a tile I < J holds the multiplicity 2 of its pairs.
#pragma once

#include <cuda_runtime.h>

#include "kernels/power_retention/cuda/backward_args.cuh"
#include "kernels/power_retention/cuda/scan.cuh"

namespace statehouse::kernels {

// Grid (ScanTiles::kBlocks, Hk, sequences). A thread carries 4 neighbours of dS or dz.
template <typename T, int kDim>
__global__ void __launch_bounds__(kScanThreads) ScanGradients(BackwardArgs<T> args) {
  using Tiles = ScanTiles<kDim>;
  constexpr int64_t kRows = RetentionStateRows(kDim);
  const RetentionArgs<T>& forward = args.forward;
  int64_t group = static_cast<int64_t>(blockIdx.x) * kScanThreads + threadIdx.x;
  if (group >= Tiles::kGroups) return;
  const int h = blockIdx.y, sequence = blockIdx.z;
  const bool is_normalizer = group >= Tiles::kStateGroups;
  if (is_normalizer) group -= Tiles::kStateGroups;
  const int64_t stride = is_normalizer ? kRows : kRows * kDim;  // of a chunk's head
  const float* final = is_normalizer ? args.dfinal_normalizer : args.dfinal_state;
  float* initial = is_normalizer ? args.dinitial_normalizer : args.dinitial_state;
  const float* local = (is_normalizer ? forward.local_z : forward.local) + group * 4;
  const int row = static_cast<int>(is_normalizer ? group * 4 : group * 4 / kDim);
  const float factor = CountsTwice<kDim>(row) ? 2.0f : 1.0f;
  const int64_t in_state = (static_cast<int64_t>(sequence) * forward.heads_kv + h) * stride + group * 4;

  int64_t in_suffix = group * 4;
  if (forward.has_wgmma && !is_normalizer) {  // as ScanChunks lays prefix out
    const int column = static_cast<int>(group * 4 % kDim);
    in_suffix = int64_t{row / 64} * 64 * kDim + column / 64 * 64 * 64 + SwizzledUnit(row % 64, column % 64 / 8) / 2 +
                column % 8;
  }

  float4 x = {};
  if (final != nullptr) x = *reinterpret_cast<const float4*>(final + in_state);
  const int first = forward.first_chunks[sequence], last = forward.first_chunks[sequence + 1] - 1;
  const int folded = initial != nullptr ? first : first + 1;  // chunks from here on are folded
  constexpr int kAhead = 4;                                   // loads in flight
  float4 ahead[kAhead];
  const auto load = [&](int n) {
    return __ldcs(reinterpret_cast<const float4*>(local + (static_cast<int64_t>(n) * forward.heads_kv + h) * stride));
  };
#pragma unroll
  for (int a = 0; a < kAhead; ++a) {
    if (last - a >= folded) ahead[a] = load(last - a);
  }
  for (int base = last; base >= first; base -= kAhead) {
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int n = base - a;
      if (n < first) break;
      const int64_t slot = static_cast<int64_t>(n) * forward.heads_kv + h;
      if (n < last || final != nullptr) {
        if (is_normalizer) {
          *reinterpret_cast<float4*>(args.suffix_z + slot * stride + group * 4) = x;
        } else {
          StoreRounded(args.suffix + slot * stride + in_suffix, x, 1.0f);
        }
      }
      if (n >= folded) {
        const float4 own = {factor * ahead[a].x, factor * ahead[a].y, factor * ahead[a].z, factor * ahead[a].w};
        x = Advance(x, forward.decay[slot], own);
      }
      if (n - kAhead >= folded) ahead[a] = load(n - kAhead);
    }
  }
  if (initial != nullptr) *reinterpret_cast<float4*>(initial + in_state) = x;
}

inline constexpr int kBorderThreads = 256;

// Grid (kBorderParts, Hk, chunks).
template <typename T, int kDim>
__global__ void __launch_bounds__(kBorderThreads) MultiplyBorders(BackwardArgs<T> args) {
  __shared__ float warp_sums[kBorderThreads / 32];
  constexpr int kRows = static_cast<int>(RetentionStateRows(kDim)), kUnits = kRows * (kDim / 8);
  const RetentionArgs<T>& forward = args.forward;
  const int n = blockIdx.z, part = blockIdx.x;
  const ChunkEntry chunk = forward.chunks[n];
  const int64_t slot = static_cast<int64_t>(n) * forward.heads_kv + blockIdx.y;
  float sum = 0;
  if (args.has_prefix && HasState(forward, chunk) && HasGradient(args, chunk)) {
    const uint4* before = reinterpret_cast<const uint4*>(forward.prefix + slot * kRows * kDim);
    const uint4* after = reinterpret_cast<const uint4*>(args.suffix + slot * kRows * kDim);
#pragma unroll 4
    for (int unit = part * kBorderThreads + threadIdx.x; unit < kUnits; unit += kBorderParts * kBorderThreads) {
      const uint4 a = before[unit], b = after[unit];
      const uint32_t x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
      float own = 0;
#pragma unroll
      for (int w = 0; w < 4; ++w)
        own += Pair<T>::Low(x[w]) * Pair<T>::Low(y[w]) + Pair<T>::High(x[w]) * Pair<T>::High(y[w]);
      sum += CountsTwice<kDim>(unit / (kDim / 8)) ? 0.5f * own : own;  // prefix holds the multiplicity too
    }
    for (int row = part * kBorderThreads + threadIdx.x; row < kRows; row += kBorderParts * kBorderThreads)
      sum += forward.prefix_z[slot * kRows + row] * args.suffix_z[slot * kRows + row];
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kBorderThreads / 32; ++w) total += warp_sums[w];
  args.border[slot * kBorderParts + part] = total;
}

}  // namespace statehouse::kernels
