// S <- e^{L_last} S + Σ_j φ(k_j e^{(L_last - L_j)/2}) v_jᵀ and z likewise, chunk after chunk: one block holds 64
// monomials of one head in registers through all of them. The sum over j runs in order, in float32.
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/slot_tile.cuh"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kMonomials = 64;           // of a block
constexpr int kStride = kMonomials + 4;  // a little more, so that a warp's stores fall into different banks

template <int d>
struct FoldShared {
  float keys[d][kTileDepth];
  float coef[kTileDepth][kStride];
  float values[kTileDepth][d];
};

// `blocks`: num_blocks chunk blocks, one after another. from_zero: S and z hold nothing yet.
template <int d>
__device__ void Fold(const SlotView& view, const float* blocks, int num_blocks, bool from_zero, float* S, float* z,
                     const uchar2* pairs, FoldShared<d>& shared) {
  using Product = TileProduct<d>;
  constexpr int kColumns = Product::kColumns;
  const int D = view.expanded, first = blockIdx.x * kMonomials;
  const int row = threadIdx.x / 16 * 4;  // of the four monomials that this thread holds
  const PanelMatrix<d> state = {S, D};
  float held[4][kColumns], z_held[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int m = first + row + i;
    const bool there = !from_zero && m < D;
    z_held[i] = there ? z[m] : 0.0f;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const int column = Product::ColumnOf(j);
      held[i][j] =
          there ? state.base[(column / state.kWidth * int64_t{D} + m) * state.kWidth + column % state.kWidth] : 0.0f;
    }
  }
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int n = 0; n < num_blocks; ++n) {
    const float* block = blocks + n * view.block_floats;
    const double last = GateSum(view, block, view.chunk - 1);
    float sum[4][kColumns] = {}, z_sum[4] = {};
    for (int c0 = 0; c0 < view.chunk; c0 += kTileDepth) {
      const int count = min(kTileDepth, view.chunk - c0), width = KeyWidth(view, c0);
      PanelTile<d, kThreads> values;
      values.Read({block + view.block_v, view.chunk}, c0, count);
      const float decay = lane < count ? expf(0.5f * static_cast<float>(last - GateSum(view, block, c0 + lane))) : 0.0f;
      __syncthreads();  // the tile before is used up
      for (int l = warp; l < d; l += kThreads / 32) {
        shared.keys[l][lane] = lane < count ? decay * block[int64_t{c0} * d + l * width + lane] : 0.0f;
      }
      values.Store(&shared.values[0][0]);
      __syncthreads();  // keys are there
#pragma unroll
      for (int four = 0; four < kMonomials / 4; four += kThreads / 32) {
        float4 expanded = make_float4(0, 0, 0, 0);
        float* const out = &expanded.x;
        const int m0 = (four + warp) * 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (first + m0 + i >= D) continue;
          const uchar2 pair = pairs[first + m0 + i];
          const float product = shared.keys[pair.x][lane] * shared.keys[pair.y][lane];
          out[i] = pair.x == pair.y ? product : 2.0f * product;
        }
        *reinterpret_cast<float4*>(&shared.coef[lane][m0]) = expanded;
      }
      __syncthreads();  // coefficients are there
      Product::template Add<kStride>(&shared.coef[0][0], &shared.values[0][0], kTileDepth, sum);
      for (int k = 0; k < kTileDepth; ++k) {
        const float4 c = *reinterpret_cast<const float4*>(&shared.coef[k][row]);
        z_sum[0] += c.x, z_sum[1] += c.y, z_sum[2] += c.z, z_sum[3] += c.w;
      }
    }
    const float decay = expf(static_cast<float>(last));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      z_held[i] = fmaf(z_held[i], decay, z_sum[i]);
#pragma unroll
      for (int j = 0; j < kColumns; ++j) held[i][j] = fmaf(held[i][j], decay, sum[i][j]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int m = first + row + i;
    if (m >= D) continue;
    if (threadIdx.x % 16 == 0) z[m] = z_held[i];
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const int column = Product::ColumnOf(j);
      S[(column / state.kWidth * int64_t{D} + m) * state.kWidth + column % state.kWidth] = held[i][j];
    }
  }
}

// Grid (monomials / 64, head, fold). Folds the one chunk that is due, if one is.
template <int d>
__global__ void __launch_bounds__(kThreads) FoldDue(SlotKernelArgs args) {
  __shared__ FoldShared<d> shared;
  const int32_t at = args.folds[blockIdx.z];
  if (at < 0) return;
  const SlotSegment segment = args.segments[at - args.first_segment];
  const SlotHead slot(args.view, segment.memory, args.layer_idx, blockIdx.y);
  if (!slot.HoldsState()) return;
  const int64_t folded = slot.header()->folded_chunks;
  if (folded >= segment.position / args.view.chunk - 1) return;
  Fold<d>(args.view, slot.Block(folded, true), 1, false, slot.State(), slot.Normalizer(), args.pairs, shared);
}

// --- switch-over: stage, clear, fold, finish ---

__device__ __forceinline__ bool IsSwitched(const float* region) {
  return reinterpret_cast<const RetentionHeader*>(region)->in_state_form != 0;
}

__global__ void __launch_bounds__(kThreads) StageRows(SlotSwitchArgs args) {
  const int64_t count = RetentionLayout::kHeaderFloats + args.num_blocks * args.view.block_floats;
  for (int64_t at = blockIdx.x * kThreads + threadIdx.x; at < count; at += gridDim.x * kThreads) {
    args.staging[at] = args.region[at];
  }
}

__global__ void __launch_bounds__(kThreads) ClearRegion(SlotSwitchArgs args) {
  if (IsSwitched(args.staging)) return;
  for (int64_t at = blockIdx.x * kThreads + threadIdx.x; at < args.view.head_floats; at += gridDim.x * kThreads) {
    args.region[at] = 0.0f;
  }
}

template <int d>
__global__ void __launch_bounds__(kThreads) FoldRows(SlotSwitchArgs args) {
  __shared__ FoldShared<d> shared;
  if (IsSwitched(args.staging)) return;
  const SlotHead slot(args.view, args.region, 0, 0);
  Fold<d>(args.view, args.staging + RetentionLayout::kHeaderFloats, args.num_blocks - 1, true, slot.State(),
          slot.Normalizer(), args.pairs, shared);
}

__global__ void __launch_bounds__(kThreads) FinishSwitch(SlotSwitchArgs args) {
  if (IsSwitched(args.staging)) return;
  const SlotHead slot(args.view, args.region, 0, 0);
  const float* from = args.staging + RetentionLayout::kHeaderFloats + (args.num_blocks - 1) * args.view.block_floats;
  float* const to = slot.Block(args.num_blocks - 1, true);
  for (int64_t at = blockIdx.x * kThreads + threadIdx.x; at < args.view.block_floats; at += gridDim.x * kThreads) {
    to[at] = from[at];
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    *slot.header() = {.folded_chunks = args.num_blocks - 1, .in_state_form = 1};
  }
}

}  // namespace

absl::Status LaunchSlotFold(const SlotKernelArgs& args, int d, int num_folds, cudaStream_t stream) {
  const dim3 grid((args.view.expanded + kMonomials - 1) / kMonomials, args.view.heads_kv, num_folds);
  return ForHeadDim(d, [&]<int kDim>() {
    FoldDue<kDim><<<grid, kThreads, 0, stream>>>(args);
    return LaunchStatus("FoldDue");
  });
}

absl::Status LaunchSlotSwitchOver(const SlotSwitchArgs& args, int d, cudaStream_t stream) {
  constexpr int kCopyBlocks = 264;
  const int fold_blocks = (args.view.expanded + kMonomials - 1) / kMonomials;
  StageRows<<<kCopyBlocks, kThreads, 0, stream>>>(args);
  if (absl::Status status = LaunchStatus("StageRows"); !status.ok()) return status;
  ClearRegion<<<kCopyBlocks, kThreads, 0, stream>>>(args);
  if (absl::Status status = LaunchStatus("ClearRegion"); !status.ok()) return status;
  absl::Status status = ForHeadDim(d, [&]<int kDim>() {
    FoldRows<kDim><<<fold_blocks, kThreads, 0, stream>>>(args);
    return LaunchStatus("FoldRows");
  });
  if (!status.ok()) return status;
  FinishSwitch<<<16, kThreads, 0, stream>>>(args);
  return LaunchStatus("FinishSwitch");
}

}  // namespace statehouse::kernels
