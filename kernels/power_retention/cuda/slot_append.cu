// Writes new rows into their chunk blocks: K transposed, V in panels, running sums of the log gates.
#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/slot_args.cuh"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kSlices = 16;  // blocks that share a segment's copies, at most

// Grid (segment, head, slice of the copies); the first slice sums the gates.
template <int d>
__global__ void __launch_bounds__(kThreads) AppendRows(SlotKernelArgs args) {
  __shared__ float gates[kThreads];
  LetDependentsStart();
  const SlotView& view = args.view;
  const SlotSegment segment = args.segments[blockIdx.x];
  WaitForResults();
  const int head = blockIdx.y, rows = segment.num_rows;
  const SlotHead slot(view, segment.memory, args.layer_idx, head);
  const bool holds_state = slot.HoldsState();
  const int64_t chunk = segment.position / view.chunk;
  const int first_c = static_cast<int>(segment.position - chunk * view.chunk);
  float* const block = slot.Block(chunk, holds_state);
  float* const V = block + view.block_v;

  const int first = blockIdx.z * kThreads + threadIdx.x, stride = gridDim.z * kThreads;
  for (int at = first; at < rows * d; at += stride) {
    // Many rows: neighbours in a warp are keys, as they lie in K. Few: they are elements of a row, as they come.
    const int row = rows >= 32 ? at % rows : at / d, l = rows >= 32 ? at / rows : at % d, c = first_c + row;
    const int64_t from = (segment.first_row + row) * args.row_stride + head * d + l;
    block[KeyOffset<d>(c) + l * KeyWidth(view, c)] = args.k[from];
  }
  for (int at = first; at < rows * d; at += stride) {
    constexpr int kWidth = PanelMatrix<d>::kWidth;
    const int row = at / d, column = at % d, c = first_c + row;
    const int64_t from = (segment.first_row + row) * args.row_stride + head * d + column;
    V[(int64_t{column / kWidth} * view.chunk + c) * kWidth + column % kWidth] = args.v[from];
  }
  if (blockIdx.z > 0) return;
  double sum = threadIdx.x == 0 && first_c > 0 ? GateSum(view, block, first_c - 1) : 0.0;
  for (int done = 0; done < rows; done += kThreads) {
    const int count = min(kThreads, rows - done);
    if (static_cast<int>(threadIdx.x) < count) {
      gates[threadIdx.x] = args.log_g[(segment.first_row + done + threadIdx.x) * args.row_stride + head];
    }
    __syncthreads();  // gates are there
    if (threadIdx.x == 0) {
      for (int i = 0; i < count; ++i) {
        sum += fmax(static_cast<double>(gates[i]), kLowestGate);
        const RoundedGateSum rounded(sum);
        rounded.Store(view, block, first_c + done + i);
        sum = rounded.Value();
      }
    }
    __syncthreads();  // gates may be overwritten
  }
  // The fold before these rows is done.
  if (threadIdx.x == 0 && first_c == 0 && holds_state && slot.header()->folded_chunks < chunk - 1) {
    ++slot.header()->folded_chunks;
  }
}

}  // namespace

absl::Status LaunchSlotAppend(const SlotKernelArgs& args, int d, int num_segments, bool overlaps, cudaStream_t stream) {
  // Few segments may have many rows each; blocks without any end at once.
  constexpr int kBlocks = 64;
  const int slices = num_segments >= kBlocks ? 1 : kBlocks / num_segments < kSlices ? kBlocks / num_segments : kSlices;
  const dim3 grid(num_segments, args.view.heads_kv, slices);
  return ForHeadDim(d, [&]<int kDim>() {
    return LaunchPerhapsEarly(overlaps, "AppendRows", AppendRows<kDim>, grid, kThreads, 0, stream, args);
  });
}

}  // namespace statehouse::kernels
