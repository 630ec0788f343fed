// From what each chunk adds to what stands before each chunk, in the order of the sequence:
//   prefix[n] = S, S = decay[n] S + local[n]
// The prefix is rounded to the tensor cores' type and holds the multiplicity 2 of pairs i < j; S itself stays float32.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

inline constexpr int kScanThreads = 256;

template <int kDim, int kDegree = 2>
struct ScanTiles {
  static constexpr int64_t kRows = RetentionStateRows(kDim, kDegree);
  static constexpr int64_t kStateGroups = kRows * kDim / 4;  // of 4 floats
  static constexpr int64_t kGroups = kStateGroups + kRows / 4;
  static constexpr int kBlocks = static_cast<int>((kGroups + kScanThreads - 1) / kScanThreads);
};

template <typename T>
__device__ __forceinline__ void StoreRounded(T* at, float4 x, float factor) {
  if constexpr (sizeof(T) == 4) {
    *reinterpret_cast<float4*>(at) = {factor * x.x, factor * x.y, factor * x.z, factor * x.w};
  } else {
    *reinterpret_cast<uint2*>(at) = {Pair<T>::Pack(factor * x.x, factor * x.y),
                                     Pair<T>::Pack(factor * x.z, factor * x.w)};
  }
}

__device__ __forceinline__ float4 Advance(float4 x, float decay, float4 local) {
  return {fmaf(decay, x.x, local.x), fmaf(decay, x.y, local.y), fmaf(decay, x.z, local.z), fmaf(decay, x.w, local.w)};
}

// States of degree 4 are float32 and hold what they count.
template <typename T, int kDegree>
using ScannedElement = std::conditional_t<kDegree == 4, float, PrefixElement<T>>;

// Is the row in a tile I < J?
template <int kDim, int kDegree>
__device__ __forceinline__ bool CountsTwice(int64_t row) {
  if constexpr (kDegree == 4) return false;
  const TilePosition tile = TileAt<kDim / 8>(static_cast<int>(row / 64));
  return tile.I < tile.J;
}

// Grid (kBlocks, Hk, sequences). A thread carries 4 neighbours of S or z through its sequence.
template <typename T, int kDim, int kDegree = 2>
__global__ void __launch_bounds__(kScanThreads) ScanChunks(RetentionArgs<T> args) {
  using Tiles = ScanTiles<kDim, kDegree>;
  constexpr int64_t kRows = Tiles::kRows;
  auto* prefix = reinterpret_cast<ScannedElement<T, kDegree>*>(args.prefix);
  int64_t group = static_cast<int64_t>(blockIdx.x) * kScanThreads + threadIdx.x;
  if (group >= Tiles::kGroups) return;
  const int h = blockIdx.y, sequence = blockIdx.z;
  const bool is_normalizer = group >= Tiles::kStateGroups;
  if (is_normalizer) group -= Tiles::kStateGroups;
  const int64_t stride = is_normalizer ? kRows : kRows * kDim;  // of a chunk's head
  const float* initial = is_normalizer ? args.initial_normalizer : args.initial_state;
  float* final = is_normalizer ? args.final_normalizer : args.final_state;
  const float* local = (is_normalizer ? args.local_z : args.local) + group * 4;
  const float factor = !is_normalizer && CountsTwice<kDim, kDegree>(group * 4 / kDim) ? 2.0f : 1.0f;
  const int64_t in_state = (static_cast<int64_t>(sequence) * args.heads_kv + h) * stride + group * 4;

  int64_t in_prefix = group * 4;
  if (args.has_wgmma) {  // per tile: blocks of 64 columns, permuted rows of 128 bytes
    const int row = static_cast<int>(group * 4 / kDim), column = static_cast<int>(group * 4 % kDim);
    in_prefix = int64_t{row / 64} * 64 * kDim + column / 64 * 64 * 64 + SwizzledUnit(row % 64, column % 64 / 8) / 2 +
                column % 8;
  }

  float4 x = {};
  if (initial != nullptr) x = *reinterpret_cast<const float4*>(initial + in_state);
  const int first = args.first_chunks[sequence], last = args.first_chunks[sequence + 1] - 1;
  const int folded = final != nullptr && !args.leaves_last_open ? last + 1 : last;
  constexpr int kAhead = 4;  // loads in flight
  float4 ahead[kAhead];
#pragma unroll
  for (int a = 0; a < kAhead; ++a) {
    const int64_t slot = static_cast<int64_t>(first + a) * args.heads_kv + h;
    if (first + a < folded) ahead[a] = __ldcs(reinterpret_cast<const float4*>(local + slot * stride));
  }
  for (int base = first; base <= last; base += kAhead) {
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int n = base + a;
      if (n > last) break;
      const int64_t slot = static_cast<int64_t>(n) * args.heads_kv + h;
      if (n > first || initial != nullptr) {
        if (is_normalizer) {
          *reinterpret_cast<float4*>(args.prefix_z + slot * stride + group * 4) = x;
        } else {
          StoreRounded(prefix + slot * stride + in_prefix, x, factor);
        }
      }
      if (n < folded) x = Advance(x, args.decay[slot], ahead[a]);
      const int next = n + kAhead;
      if (next < folded) {
        ahead[a] =
            __ldcs(reinterpret_cast<const float4*>(local + (static_cast<int64_t>(next) * args.heads_kv + h) * stride));
      }
    }
  }
  if (final != nullptr) *reinterpret_cast<float4*>(final + in_state) = x;
}

}  // namespace statehouse::kernels
