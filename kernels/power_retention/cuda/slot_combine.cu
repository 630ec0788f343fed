// Adds the parts of each query's sums in order and divides:
//   y = (σ^p e^{L} Σ state parts + Σ tail parts) / (the same of the denominators), 0 where nothing can be divided by.
#include <cuda_bf16.h>

#include <cfloat>

#include "kernels/cuda/status.h"
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

// Grid (tile · tile_queries + query, head); one thread per column.
template <int d>
__global__ void CombineParts(SlotKernelArgs args, int tile_queries) {
  const SlotView& view = args.view;
  const int m = blockIdx.x % tile_queries;
  const TilePlace place(args, blockIdx.x / tile_queries, blockIdx.y, tile_queries);
  if (m >= place.num_queries) return;
  const int parts = args.state_parts + args.tail_parts, column = threadIdx.x;
  const int64_t first = (int64_t{place.tile} * view.heads_kv + place.head) * parts * tile_queries + m;  // its part 0
  const SlotHead head = place.Head(view);
  const int row = place.RowOf(view, m);
  float numerator = 0, denominator = 0;
  if (place.first_chunk > 0) {
    AddInOrder(args.numerators + first * d + column, int64_t{tile_queries} * d, args.state_parts, &numerator);
    AddInOrder(args.denominators + first, tile_queries, args.state_parts, &denominator);
    double gates = GateSum(view, head.Block(place.chunk, place.holds_state), place.chunk_row + row);
    for (int64_t n = place.chunk - 1; n >= place.first_chunk; --n) {
      gates += GateSum(view, head.Block(n, place.holds_state), view.chunk - 1);
    }
    const float factor = expf(static_cast<float>(gates)) * Power(view.scale, view.degree);
    numerator *= factor;
    denominator *= factor;
  }
  // Parts beyond this row's position hold exact zeros for it, or do not exist.
  const int tail_parts = place.NumTailParts(args);
  const int64_t tail = first + int64_t{args.state_parts} * tile_queries;
  AddInOrder(args.numerators + tail * d + column, int64_t{tile_queries} * d, tail_parts, &numerator);
  AddInOrder(args.denominators + tail, tile_queries, tail_parts, &denominator);
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

absl::Status LaunchSlotCombine(const SlotKernelArgs& args, int d, int tile_queries, int num_tiles,
                               cudaStream_t stream) {
  const dim3 grid(num_tiles * tile_queries, args.view.heads_kv);
  return ForHeadDim(d, [&]<int kDim>() {
    CombineParts<kDim><<<grid, kDim, 0, stream>>>(args, tile_queries);
    return LaunchStatus("CombineParts");
  });
}

}  // namespace statehouse::kernels
