// Before the fold, per chunk and key/value head:
//   L[c] = Σ_{u<=c} log_g[u], decay = e^{L[last]}, factors of keys (SumGates)
//   keys = Kᵀ, values[c] = e^{L[last] - L[c]} V[c]               (PrepareRows)
// Rows past the chunk's end, up to a whole tile, become zero, so that the fold needs no bounds.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/args.cuh"

namespace statehouse::kernels {

inline constexpr int kGateThreads = 256;
inline constexpr int kPrepareThreads = 128;
inline constexpr double kLowestLogGate = -200.0;

// Grid (chunks, Hk). Sums in double: differences of two sums must stay exact after many closed gates.
template <typename T>
__global__ void __launch_bounds__(kGateThreads) SumGates(RetentionArgs<T> args) {
  __shared__ double warp_sums[kGateThreads / 32];
  const int n = blockIdx.x, h = blockIdx.y;
  const ChunkEntry chunk = args.chunks[n];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int per_thread = (args.chunk_rows + kGateThreads - 1) / kGateThreads;
  const int first = threadIdx.x * per_thread;
  const auto gate = [&](int c) {
    if (args.log_G == nullptr || c >= chunk.num_rows) return 0.0;
    return fmax(kLowestLogGate, static_cast<double>(args.log_G[(chunk.first_row + c) * args.heads_kv + h]));
  };

  double own = 0;
  for (int c = first; c < first + per_thread; ++c) own += gate(c);
  double inclusive = own;
  for (int offset = 1; offset < 32; offset *= 2) {
    const double other = __shfl_up_sync(0xffffffffu, inclusive, offset);
    if (lane >= offset) inclusive += other;
  }
  if (lane == 31) warp_sums[warp] = inclusive;
  __syncthreads();
  double sum = inclusive - own;
  for (int w = 0; w < warp; ++w) sum += warp_sums[w];

  float2* sums = args.sums + (static_cast<int64_t>(n) * args.heads_kv + h) * args.chunk_rows;
  for (int c = first; c < first + per_thread && c < args.chunk_rows; ++c) {
    sum += gate(c);
    const float rounded = static_cast<float>(sum);
    sums[c] = {rounded, static_cast<float>(sum - rounded)};
    if (c == chunk.num_rows - 1) args.decay[n * args.heads_kv + h] = static_cast<float>(exp(sum));
  }
  __syncthreads();  // all sums are there
  float* factors = args.key_factors + (static_cast<int64_t>(n) * args.heads_kv + h) * args.chunk_rows;
  for (int c = threadIdx.x; c < args.chunk_rows; c += kGateThreads)
    factors[c] = expf(Difference(sums[c | (kTokenTile - 1)], sums[c]));
}

// One tile of rows as a fold wants them. load(c, column, key, value) gives 8 elements of row c; zeros past the end.
template <typename T, int kDim, typename Load>
__device__ __forceinline__ void PrepareTile(const RetentionArgs<T>& args, int64_t slot, int tile_idx,
                                            const Load& load) {
  constexpr int kUnits = kDim / 8;       // 16-byte units of a row
  constexpr int kStride = kDim / 2 + 1;  // words; odd, so that a column's words lie in different banks
  __shared__ uint32_t tile[kTokenTile * kStride];
  const int64_t rows = FoldRows(args), first = int64_t{tile_idx} * kTokenTile;
  char* sm90_tile =
      reinterpret_cast<char*>(args.keys) + (slot * (rows / kTokenTile) + tile_idx) * FoldTileSm90<kDim>::kBytes;

  ForEach<kTokenTile * kUnits, kPrepareThreads>([&](int unit) {
    const int c = unit / kUnits, column = unit % kUnits;
    uint4 key = {}, value = {};
    load(c, column, key, value);
    if (args.has_wgmma) {
      *reinterpret_cast<uint4*>(sm90_tile + FoldTileSm90<kDim>::Value(c, column)) = value;
    } else {
      reinterpret_cast<uint4*>(args.values)[(slot * rows + first + c) * kUnits + column] = value;
    }
    uint32_t* row = tile + c * kStride + column * 4;
    row[0] = key.x, row[1] = key.y, row[2] = key.z, row[3] = key.w;
  });
  __syncthreads();

  const uint16_t* halves = reinterpret_cast<const uint16_t*>(tile);
  ForEach<kDim*(kTokenTile / 8), kPrepareThreads>([&](int unit) {
    const int i = unit / (kTokenTile / 8), c = unit % (kTokenTile / 8) * 8;
    uint4 column;
    uint32_t* words = reinterpret_cast<uint32_t*>(&column);
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const uint32_t low = halves[(c + 2 * w) * 2 * kStride + i], high = halves[(c + 2 * w + 1) * 2 * kStride + i];
      words[w] = low | high << 16;
    }
    if (args.has_wgmma) {
      *reinterpret_cast<uint4*>(sm90_tile + FoldTileSm90<kDim>::Key(i, c / 8)) = column;
    } else {
      *reinterpret_cast<uint4*>(args.keys + (slot * kDim + i) * rows + first + c) = column;
    }
  });
}

// 8 elements times a factor.
template <typename T>
__device__ __forceinline__ void ScaleUnit(uint4& unit, float factor) {
  uint32_t* words = reinterpret_cast<uint32_t*>(&unit);
#pragma unroll
  for (int w = 0; w < 4; ++w)
    words[w] = Pair<T>::Pack(factor * Pair<T>::Low(words[w]), factor * Pair<T>::High(words[w]));
}

// Grid (tiles of a chunk, Hk, chunks).
template <typename T, int kDim>
__global__ void __launch_bounds__(kPrepareThreads) PrepareRows(RetentionArgs<T> args) {
  const int n = blockIdx.z, h = blockIdx.y, first = blockIdx.x * kTokenTile;
  const ChunkEntry chunk = args.chunks[n];
  if (!IsFolded(args, chunk) || first >= chunk.num_rows) return;
  const int64_t slot = static_cast<int64_t>(n) * args.heads_kv + h;
  const float2* sums = args.sums + slot * args.chunk_rows;
  const float2 last = sums[chunk.num_rows - 1];
  PrepareTile<T, kDim>(args, slot, blockIdx.x, [&](int c, int column, uint4& key, uint4& value) {
    if (first + c >= chunk.num_rows) return;
    const int64_t at = ((chunk.first_row + first + c) * args.heads_kv + h) * (kDim / 8) + column;
    key = reinterpret_cast<const uint4*>(args.K)[at];
    value = reinterpret_cast<const uint4*>(args.V)[at];
    ScaleUnit<T>(value, expf(Difference(last, sums[first + c])));
  });
}

}  // namespace statehouse::kernels
