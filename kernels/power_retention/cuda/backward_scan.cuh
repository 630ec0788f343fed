// Gradients of states, against the order of the sequence:
//   suffix[n] = dS, dS = decay[n] dS + local[n]               (ScanGradients)
// where local[n] is what the chunk's own rows give; and, on the way, <dS after the chunk, S before it>: what crosses
// the chunk altogether. The gradient by an element of a tile I < J holds the multiplicity 2 of its pairs.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/backward_args.cuh"
#include "kernels/power_retention/cuda/scan.cuh"

namespace statehouse::kernels {

// Four neighbours of S (of z) before a chunk; S as the tensor cores take it, if they do.
template <typename T, int kDegree>
__device__ __forceinline__ float4 LoadBefore(const RetentionArgs<T>& args, int64_t at, bool is_normalizer) {
  if (is_normalizer) return *reinterpret_cast<const float4*>(args.prefix_z + at);
  if constexpr (std::is_same_v<ScannedElement<T, kDegree>, float>) {
    return *reinterpret_cast<const float4*>(reinterpret_cast<const float*>(args.prefix) + at);
  } else {
    const uint2 pairs = *reinterpret_cast<const uint2*>(args.prefix + at);
    return {Pair<T>::Low(pairs.x), Pair<T>::High(pairs.x), Pair<T>::Low(pairs.y), Pair<T>::High(pairs.y)};
  }
}

// Grid (ScanTiles::kBlocks, Hk, sequences). A thread carries 4 neighbours of dS or dz.
template <typename T, int kDim, int kDegree = 2>
__global__ void __launch_bounds__(kScanThreads) ScanGradients(BackwardArgs<T> args) {
  using Tiles = ScanTiles<kDim, kDegree>;
  constexpr int64_t kRows = Tiles::kRows;
  auto* suffix = reinterpret_cast<ScannedElement<T, kDegree>*>(args.suffix);
  const RetentionArgs<T>& forward = args.forward;
  int64_t group = static_cast<int64_t>(blockIdx.x) * kScanThreads + threadIdx.x;
  const bool is_active = group < Tiles::kGroups;
  if (!is_active) group = Tiles::kGroups - 1;  // so that all lanes of a warp sum
  const int h = blockIdx.y, sequence = blockIdx.z;
  const bool is_normalizer = group >= Tiles::kStateGroups;
  if (is_normalizer) group -= Tiles::kStateGroups;
  const int64_t stride = is_normalizer ? kRows : kRows * kDim;  // of a chunk's head
  const float* final = is_normalizer ? args.dfinal_normalizer : args.dfinal_state;
  float* initial = is_normalizer ? args.dinitial_normalizer : args.dinitial_state;
  const float* local = (is_normalizer ? forward.local_z : forward.local) + group * 4;
  const int row = static_cast<int>(is_normalizer ? group * 4 : group * 4 / kDim);
  const float factor = CountsTwice<kDim, kDegree>(row) ? 2.0f : 1.0f;
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
  float4 ahead[kAhead], before[kAhead];
  const auto load = [&](int n) {
    return __ldcs(reinterpret_cast<const float4*>(local + (static_cast<int64_t>(n) * forward.heads_kv + h) * stride));
  };
  // Chunks from here on have something before them.
  const int crossed = !args.has_prefix ? last + 1 : forward.initial_state != nullptr ? first : first + 1;
  const auto load_before = [&](int n) {
    const int64_t slot = static_cast<int64_t>(n) * forward.heads_kv + h;
    return LoadBefore<T, kDegree>(forward, slot * stride + in_suffix, is_normalizer);
  };
  const int num_parts = gridDim.x * kScanThreads / 32, part = (blockIdx.x * kScanThreads + threadIdx.x) / 32;
#pragma unroll
  for (int a = 0; a < kAhead; ++a) {
    if (last - a >= folded) ahead[a] = load(last - a);
    if (last - a >= crossed) before[a] = load_before(last - a);
  }
  for (int base = last; base >= first; base -= kAhead) {
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int n = base - a;
      if (n < first) break;
      const int64_t slot = static_cast<int64_t>(n) * forward.heads_kv + h;
      float product = 0;
      if (n >= crossed && is_active) {
        product = x.x * before[a].x + x.y * before[a].y + x.z * before[a].z + x.w * before[a].w;
        if (!is_normalizer) product /= factor;  // S before the chunk holds the multiplicity too
      }
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) product += __shfl_xor_sync(0xffffffffu, product, offset);
      if (threadIdx.x % 32 == 0) args.border[slot * num_parts + part] = product;
      if (is_active && (n < last || final != nullptr)) {
        if (is_normalizer) {
          *reinterpret_cast<float4*>(args.suffix_z + slot * stride + group * 4) = x;
        } else {
          StoreRounded(suffix + slot * stride + in_suffix, x, 1.0f);
        }
      }
      if (n >= folded) {
        const float4 own = {factor * ahead[a].x, factor * ahead[a].y, factor * ahead[a].z, factor * ahead[a].w};
        x = Advance(x, forward.decay[slot], own);
      }
      if (n - kAhead >= folded) ahead[a] = load(n - kAhead);
      if (n - kAhead >= crossed) before[a] = load_before(n - kAhead);
    }
  }
  if (is_active && initial != nullptr) *reinterpret_cast<float4*>(initial + in_state) = x;
}

}  // namespace statehouse::kernels
