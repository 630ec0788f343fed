// Adds the parts of each query's sums in order and divides:
//   y = (σ^p e^{L} Σ state parts + Σ tail parts) / (the same of the denominators), 0 where nothing can be divided by.
#include <cuda_bf16.h>

#include <cfloat>

#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/slot_args.cuh"

namespace statehouse::kernels {
namespace {

__device__ __forceinline__ void AddInOrder(const float* from, int64_t stride, int count, float* sum) {
  constexpr int kAhead = 16;
  int i = 0;
  for (; i + kAhead <= count; i += kAhead) {
    float held[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) held[j] = from[(i + j) * stride];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) *sum += held[j];
  }
  for (; i < count; ++i) *sum += from[i * stride];
}

// A query's parts, taken by one of kGroups groups of threads.
struct Stretch {
  int first, count;
  __device__ Stretch(int all, int groups, int group) : first(all * group / groups) {
    count = all * (group + 1) / groups - first;
  }
};

// Grid (tile · tile_queries + query, head); a thread per column in each of kGroups groups, whose sums are added in
// order. One group: a single chain.
template <int d, int kGroups>
__global__ void __launch_bounds__(d* kGroups) CombineParts(SlotKernelArgs args, int tile_queries) {
  __shared__ float sums[4][kGroups][d];
  LetDependentsStart();
  const SlotView& view = args.view;
  const int m = blockIdx.x % tile_queries;
  TilePlace place(args, blockIdx.x / tile_queries, blockIdx.y, tile_queries);
  WaitForResults();
  place.Refresh(view);
  if (m >= place.num_queries) return;
  const int parts = args.state_parts + args.tail_parts, column = threadIdx.x % d, group = threadIdx.x / d;
  const int64_t first = (int64_t{place.tile} * view.heads_kv + place.head) * parts * tile_queries + m;  // its part 0
  const SlotHead head = place.Head(view);
  const int row = place.RowOf(view, m);
  // Numerator and denominator of the state, then of the tail. Parts beyond this row's position hold exact zeros for it,
  // or do not exist.
  float sum[4] = {};
  const auto add = [&](int first_part, int count, float* numerator, float* denominator) {
    const Stretch mine(count, kGroups, group);
    const int64_t from = first + int64_t{first_part + mine.first} * tile_queries;
    AddInOrder(args.numerators + from * d + column, int64_t{tile_queries} * d, mine.count, numerator);
    AddInOrder(args.denominators + from, tile_queries, mine.count, denominator);
  };
  if (place.first_chunk > 0) add(0, args.state_parts, &sum[0], &sum[1]);
  if constexpr (kGroups > 1) {
    add(args.state_parts, place.NumTailParts(args), &sum[2], &sum[3]);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i][group][column] = sum[i];
    __syncthreads();  // groups' sums are there
    if (group > 0) return;
#pragma unroll
    for (int other = 1; other < kGroups; ++other) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] += sums[i][other][column];
    }
  }
  float numerator = 0, denominator = 0;
  if (place.first_chunk > 0) {
    double gates = GateSum(view, head.Block(place.chunk, place.holds_state), place.chunk_row + row);
    for (int64_t n = place.chunk - 1; n >= place.first_chunk; --n) {
      gates += GateSum(view, head.Block(n, place.holds_state), view.chunk - 1);
    }
    const float factor = expf(static_cast<float>(gates)) * Power(view.scale, view.degree);
    numerator = factor * sum[0];
    denominator = factor * sum[1];
  }
  if constexpr (kGroups > 1) {
    numerator += sum[2], denominator += sum[3];
  } else {
    add(args.state_parts, place.NumTailParts(args), &numerator, &denominator);
  }
  const float y = denominator >= FLT_MIN ? numerator / denominator + 0.0f : 0.0f;
  const int query_head = place.head * view.group + (place.first_query + m) % view.group;
  const int64_t to = ((place.segment.first_row + row) * int64_t{view.group} * view.heads_kv + query_head) * d + column;
  if (args.y_is_bf16) {
    static_cast<__nv_bfloat16*>(args.y)[to] = __float2bfloat16_rn(y);
  } else {
    static_cast<float*>(args.y)[to] = y;
  }
}

}  // namespace

absl::Status LaunchSlotCombine(const SlotKernelArgs& args, int d, int tile_queries, int num_tiles, bool few,
                               cudaStream_t stream) {
  const dim3 grid(num_tiles * tile_queries, args.view.heads_kv);
  return ForHeadDim(d, [&]<int kDim>() {
    constexpr int kGroups = 4;
    constexpr unsigned kFewBlocks = 256;  // more fill the GPU without groups
    if (few && grid.x * grid.y <= kFewBlocks) {
      return LaunchEarly("CombineParts", CombineParts<kDim, kGroups>, grid, kDim * kGroups, 0, stream, args,
                         tile_queries);
    }
    return LaunchEarly("CombineParts", CombineParts<kDim, 1>, grid, kDim, 0, stream, args, tile_queries);
  });
}

}  // namespace statehouse::kernels
