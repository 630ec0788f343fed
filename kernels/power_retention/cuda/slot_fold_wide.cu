// The fold of slot_fold.cu on tensor cores, for models in bf16: φ(k) and v are rounded to bf16, sums are float32.
//
// A warp holds two blocks of monomials, each of one i and 16 neighbouring j: φ is a fragment of the keys' rows j times
// their row i, formed in registers. A column of ones sums z.
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/slot_args.cuh"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kKeys = 64;  // in shared memory at a time

template <int d>
struct FoldShared {
  bf16 keys[d][kKeys + 8];    // transposed, decayed
  bf16 values[kKeys][d + 8];  // and a column of ones
};

template <int d>
__device__ void LoadChunk(const SlotView& view, const float* block, int c0, double last, FoldShared<d>& shared) {
  constexpr int kFours = kKeys / 4;
  static_assert(kThreads % kFours == 0);
  const int key = threadIdx.x % kFours * 4;  // the same for every row that this thread brings
  float decay[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    decay[i] = expf(0.5f * static_cast<float>(last - GateSum(view, block, c0 + key + i)));
  }
  for (int l = threadIdx.x / kFours; l < d; l += kThreads / kFours) {
    const float4 k = *reinterpret_cast<const float4*>(block + KeyOffset<d>(c0 + key) + l * 32);
    *reinterpret_cast<uint2*>(&shared.keys[l][key]) =
        make_uint2(Pair<bf16>::Pack(k.x * decay[0], k.y * decay[1]), Pair<bf16>::Pack(k.z * decay[2], k.w * decay[3]));
  }
  const PanelMatrix<d> values = {block + view.block_v, view.chunk};
  for (int at = threadIdx.x; at < kKeys * (d / 4); at += kThreads) {
    const int row = at / 8 % kKeys, column = at / (8 * kKeys) * 32 + at % 8 * 4;
    const float4 v = *values.Address(c0 + row, column);
    *reinterpret_cast<uint2*>(&shared.values[row][column]) =
        make_uint2(Pair<bf16>::Pack(v.x, v.y), Pair<bf16>::Pack(v.z, v.w));
  }
  if (threadIdx.x < kKeys) {
    *reinterpret_cast<uint4*>(&shared.values[threadIdx.x][d]) = make_uint4(Pair<bf16>::Pack(1.0f, 0.0f), 0, 0, 0);
  }
}

// sums[0 … 1] += φ of two blocks times the values.
template <int d>
__device__ __forceinline__ void AddKeys(const FoldShared<d>& shared, const int (&i)[2], const int (&jb)[2],
                                        float (&sums)[2][d / 8 + 1][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < kKeys; k += 16) {
    uint32_t a[2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      LoadMatrices(a[half], SharedAddress(&shared.keys[jb[half] * 16 + lane % 16][k + lane / 16 * 8]));
      const bf16* own = &shared.keys[i[half]][k + lane % 4 * 2];
      const uint32_t first = *reinterpret_cast<const uint32_t*>(own),
                     second = *reinterpret_cast<const uint32_t*>(own + 8);
      a[half][0] = Pair<bf16>::Multiply(a[half][0], first);
      a[half][1] = Pair<bf16>::Multiply(a[half][1], first);
      a[half][2] = Pair<bf16>::Multiply(a[half][2], second);
      a[half][3] = Pair<bf16>::Multiply(a[half][3], second);
    }
#pragma unroll
    for (int tile = 0; tile <= d / 8; tile += 2) {
      const bool single = tile == d / 8;
      uint32_t b[4];
      LoadMatricesTransposed(b, SharedAddress(&shared.values[k + lane % 16][tile * 8 + (single ? 0 : lane / 16 * 8)]));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Mma<bf16>(sums[half][tile], a[half], b[0], b[1]);
        if (!single) Mma<bf16>(sums[half][tile + 1], a[half], b[2], b[3]);
      }
    }
  }
}

template <int d>
__device__ __forceinline__ void Update(const SlotHead& head, int first_row, int i, int jb, float decay,
                                       const float (&sums)[d / 8 + 1][4]) {
  const int lane = threadIdx.x % 32;
  const PanelMatrix<d> state = {head.State(), head.view.expanded};
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    const int offset = lane / 4 + side * 8, j = jb * 16 + offset;
    if (j < i) continue;  // another i's monomial
    const float count = i == j ? 1.0f : 2.0f;
    const int64_t row = first_row + offset;
#pragma unroll
    for (int tile = 0; tile < d / 8; ++tile) {
      float2* const at = reinterpret_cast<float2*>(const_cast<float4*>(state.Address(row, tile * 8))) + lane % 4;
      const float2 before = *at;
      *at = make_float2(fmaf(before.x, decay, count * sums[tile][side * 2]),
                        fmaf(before.y, decay, count * sums[tile][side * 2 + 1]));
    }
    if (lane % 4 == 0) {
      float* const z = head.Normalizer() + row;
      *z = fmaf(*z, decay, count * sums[d / 8][side * 2]);
    }
  }
}

// Grid (blocks of monomials / 2 warps, head, fold).
template <int d>
__global__ void __launch_bounds__(kThreads, 2) FoldWide(SlotKernelArgs args) {
  __shared__ FoldShared<d> shared;
  const int32_t at = args.folds[blockIdx.z];
  if (at < 0) return;
  const SlotSegment segment = args.segments[at - args.first_segment];
  const SlotHead head(args.view, segment.memory, args.layer_idx, blockIdx.y);
  if (!head.HoldsState()) return;
  const int64_t folded = head.header()->folded_chunks;
  if (folded >= segment.position / args.view.chunk - 1) return;
  const float* const block = head.Block(folded, true);
  const double last = GateSum(args.view, block, args.view.chunk - 1);

  constexpr int kAll = d * (d / 16 + 1) / 2;
  const int task = (blockIdx.x * kWarps + threadIdx.x / 32) * 2;
  int first_row[2], i[2], jb[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int2 place = args.blocks[min(task + half, kAll - 1)];
    first_row[half] = place.x;
    i[half] = place.y >> 8;
    jb[half] = place.y & 255;
  }
  float sums[2][d / 8 + 1][4] = {};
  for (int c0 = 0; c0 < args.view.chunk; c0 += kKeys) {
    __syncthreads();  // the keys before are used up
    LoadChunk<d>(args.view, block, c0, last, shared);
    __syncthreads();  // keys are there
    AddKeys<d>(shared, i, jb, sums);
  }
  const float decay = expf(static_cast<float>(last));
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (task + half < kAll) Update<d>(head, first_row[half], i[half], jb[half], decay, sums[half]);
  }
}

}  // namespace

absl::Status LaunchSlotFoldWide(const SlotKernelArgs& args, int d, int num_folds, cudaStream_t stream) {
  const int blocks = d * (d / 16 + 1) / 2, per_block = 2 * kWarps;
  const dim3 grid((blocks + per_block - 1) / per_block, args.view.heads_kv, num_folds);
  if (d == 64) {
    FoldWide<64><<<grid, kThreads, 0, stream>>>(args);
  } else {
    FoldWide<128><<<grid, kThreads, 0, stream>>>(args);
  }
  return LaunchStatus("FoldWide");
}

}  // namespace statehouse::kernels
