// What one wave's kernels are told, and where its partial sums lie.
#pragma once

#include <cstdint>

#include "kernels/power_retention/cuda/slot_retention.h"
#include "kernels/power_retention/cuda/slot_view.cuh"

namespace statehouse::kernels {

struct SlotKernelArgs {
  SlotView view;
  const float *q, *k, *v, *log_g;
  int64_t row_stride;
  void* y;
  bool y_is_bf16;
  int64_t layer_idx;
  const SlotSegment* segments;  // of the wave
  const SlotTile* tiles;        // of the launch; their segment counts from the plan's first
  const int32_t* folds;         // of the wave
  int32_t first_segment;        // the wave's, within the plan
  const uchar2* pairs;          // monomial -> (i, j)
  const int2* blocks;           // of 16 monomials: (first row of S, 256 i + j / 16)
  void* wide_state;             // [segment of the wave, Hk, wide_rows, d + 8] in bf16: see slot_wide.cu
  int64_t wide_rows;
  float* numerators;    // [tile, Hk, part, query, d]
  float* denominators;  // [tile, Hk, part, query]
  int32_t state_parts, tail_parts, part_rows;
  SlotHeads heads;     // AnswerRow only, as what follows; its tiles are the segments in order
  uint32_t* arrivals;  // [tile, Hk, 2], zeros between launches but for the second, which any number may be
};

// Launchers, one file each. d is 16, 32, 64 or 128.
// `overlaps`: it may start before the kernel queued before it has ended.
absl::Status LaunchSlotAppend(const SlotKernelArgs& args, int d, int num_segments, bool overlaps, cudaStream_t stream);
absl::Status LaunchSlotFold(const SlotKernelArgs& args, int d, int num_folds, cudaStream_t stream);
absl::Status LaunchSlotAnswer(const SlotKernelArgs& args, int d, int tile_queries, int num_tiles, cudaStream_t stream);
absl::Status LaunchSlotAnswerFew(const SlotKernelArgs& args, int d, int tile_queries, int num_tiles,
                                 cudaStream_t stream);
// Tiles of one row, in state_parts parts; appends the rows, too. d is 64 or 128. `meets`: all blocks run at once.
absl::Status LaunchSlotAnswerRow(const SlotKernelArgs& args, int d, int num_tiles, bool meets, bool overlaps,
                                 cudaStream_t stream);
// d is 64 or 128, the chunk a multiple of 64, the degree 2. Widen first, where anything is folded.
absl::Status LaunchSlotFoldWide(const SlotKernelArgs& args, int d, int num_folds, cudaStream_t stream);
absl::Status LaunchSlotWiden(const SlotKernelArgs& args, int d, int num_segments, cudaStream_t stream);
absl::Status LaunchSlotAnswerWide(const SlotKernelArgs& args, int d, int num_tiles, cudaStream_t stream);
// `few`: of AnswerFew, whose parts need not be added in one chain.
absl::Status LaunchSlotCombine(const SlotKernelArgs& args, int d, int tile_queries, int num_tiles, bool few,
                               cudaStream_t stream);

// One head's switch-over. `staging` [header and all rows blocks].
struct SlotSwitchArgs {
  SlotView view;
  float* region;  // the head's
  float* staging;
  const uchar2* pairs;
  int32_t num_blocks;  // chunks below the switch-over
};
absl::Status LaunchSlotSwitchOver(const SlotSwitchArgs& args, int d, cudaStream_t stream);

// Calls launch.operator()<d>() for the head size.
template <typename Launch>
absl::Status ForHeadDim(int d, const Launch& launch) {
  switch (d) {
    case 16:
      return launch.template operator()<16>();
    case 32:
      return launch.template operator()<32>();
    case 64:
      return launch.template operator()<64>();
    default:
      return launch.template operator()<128>();
  }
}

#ifdef __CUDACC__

// What a block that answers queries of one tile and head knows of its place.
struct TilePlace {
  SlotSegment segment;
  int32_t tile, head, first_query, num_queries;
  int32_t chunk_row;  // of the segment's first row within its chunk
  int64_t chunk;      // of the segment's rows
  bool holds_state;
  int64_t first_chunk;  // of the tail
  float* region;

  TilePlace() = default;
  // The only tile of a segment.
  __device__ TilePlace(const SlotKernelArgs& args, const SlotSegment& segment, int tile, int head)
      : segment(segment), tile(tile), head(head), first_query(0), num_queries(segment.num_rows * args.view.group) {
    FindChunk(args);
  }
  __device__ TilePlace(const SlotKernelArgs& args, int tile, int head, int tile_queries) : tile(tile), head(head) {
    const SlotTile placed = args.tiles[tile];
    segment = args.segments[placed.segment - args.first_segment];
    first_query = placed.first_query;
    num_queries = min(tile_queries, segment.num_rows * args.view.group - first_query);
    FindChunk(args);
  }

  __device__ void FindChunk(const SlotKernelArgs& args) {
    region = SlotHead(args.view, segment.memory, args.layer_idx, head).base;
    Refresh(args.view);
    chunk = segment.position / args.view.chunk;
    chunk_row = static_cast<int32_t>(segment.position - chunk * args.view.chunk);
  }

  // Reads again what the kernels before may write.
  __device__ void Refresh(const SlotView& view) {
    const SlotHead slot = Head(view);
    holds_state = slot.HoldsState();
    first_chunk = holds_state ? slot.header()->folded_chunks : 0;
  }

  __device__ SlotHead Head(const SlotView& view) const { return SlotHead(view, region, 0, 0); }
  // The row of query m of the tile, within the segment.
  __device__ int RowOf(const SlotView& view, int m) const { return (first_query + m) / view.group; }
  __device__ int64_t LastPosition(const SlotView& view) const {
    return segment.position + RowOf(view, num_queries - 1);
  }
  // Tail parts are stretches of part_rows absolute positions.
  __device__ int64_t FirstTailPart(const SlotKernelArgs& args) const {
    return first_chunk * args.view.chunk / args.part_rows;
  }
  __device__ int NumTailParts(const SlotKernelArgs& args) const {
    return static_cast<int>(LastPosition(args.view) / args.part_rows - FirstTailPart(args) + 1);
  }
};

// Sum of the log gates of the whole chunks (after, before), by a warp; the order depends on the two alone.
__device__ __forceinline__ double ChunkGates(const SlotHead& head, bool holds_state, int64_t after, int64_t before) {
  double sum = 0;
  for (int64_t n = after + 1 + (threadIdx.x & 31); n < before; n += 32) {
    sum += GateSum(head.view, head.Block(n, holds_state), head.view.chunk - 1);
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  return sum;
}

// The first monomial of part `part`: parts hold whole groups of 32.
__device__ __forceinline__ int PartBegin(int expanded, int parts, int part) {
  const int groups = (expanded + 31) / 32;
  return min(expanded, static_cast<int>(int64_t{groups} * part / parts) * 32);
}

// Rows [first, first + kRows) of a matrix in panels of 32 columns (16 for d = 16), each `panel_rows` rows long.
template <int d>
struct PanelMatrix {
  static constexpr int kWidth = d < 32 ? d : 32;
  const float* base;
  int64_t panel_rows;

  __device__ const float4* Address(int64_t row, int column) const {
    const int panel = column / kWidth;
    return reinterpret_cast<const float4*>(base + (panel * panel_rows + row) * kWidth + column % kWidth);
  }
};

__device__ __forceinline__ float Power(float score, int degree) {
  const float square = score * score;
  return degree == 2 ? square : square * square;
}

#endif  // __CUDACC__

}  // namespace statehouse::kernels
