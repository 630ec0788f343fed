// Rows and state on their way from a slot into the forward pass of a prompt, and the state back.
#include <cuda_bf16.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/retention.h"
#include "kernels/power_retention/cuda/slot_bulk_args.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__device__ __forceinline__ void Round(void* to, int64_t at, float2 value) {
  reinterpret_cast<uint32_t*>(to)[at / 2] = Pair<bf16>::Pack(value.x, value.y);
}

// A row that the slot's tail holds. Its query is zero: nobody reads the answer.
template <int d>
__device__ void PackOldRow(const SlotBulkArgs& args, int64_t row) {
  const SlotView& view = args.slot.view;
  const int heads_q = view.heads_kv * view.group;
  const int64_t position = args.first_position + row, chunk = position / view.chunk;
  const int c = static_cast<int>(position - chunk * view.chunk);
  for (int at = threadIdx.x * 2; at < heads_q * d; at += kThreads * 2) {
    Round(args.Q, row * heads_q * d + at, make_float2(0, 0));
  }
  for (int at = threadIdx.x * 2; at < view.heads_kv * d; at += kThreads * 2) {
    const int head = at / d, l = at % d;
    const SlotHead slot(view, args.memory, args.slot.layer_idx, head);
    const bool counts = position >= slot.header()->folded_chunks * view.chunk;
    const float* const block = slot.Block(chunk, slot.HoldsState());
    const PanelMatrix<d> values = {block + view.block_v, view.chunk};
    const float* const key = block + KeyOffset<d>(c);
    const int width = KeyWidth(view, c);
    float2 k = make_float2(0, 0), v = k;
    if (counts) {
      k = make_float2(key[l * width], key[(l + 1) * width]);
      v = *reinterpret_cast<const float2*>(reinterpret_cast<const float*>(values.Address(c, l & ~3)) + (l & 3));
    }
    Round(args.K, row * view.heads_kv * d + at, k);
    Round(args.V, row * view.heads_kv * d + at, v);
    if (l == 0) {
      const double gate = GateSum(view, block, c) - (c > 0 ? GateSum(view, block, c - 1) : 0.0);
      args.log_G[row * view.heads_kv + head] = counts ? static_cast<float>(gate) : 0.0f;
    }
  }
}

// Grid (packed row).
template <int d>
__global__ void __launch_bounds__(kThreads) PackRows(SlotBulkArgs args) {
  const SlotView& view = args.slot.view;
  const int64_t row = blockIdx.x, from = (args.first_row + row - args.before) * args.slot.row_stride;
  if (row < args.before) {
    PackOldRow<d>(args, row);
    return;
  }
  const int heads_q = view.heads_kv * view.group;
  for (int at = threadIdx.x * 2; at < heads_q * d; at += kThreads * 2) {
    Round(args.Q, row * heads_q * d + at, *reinterpret_cast<const float2*>(args.slot.q + from + at));
  }
  for (int at = threadIdx.x * 2; at < view.heads_kv * d; at += kThreads * 2) {
    Round(args.K, row * view.heads_kv * d + at, *reinterpret_cast<const float2*>(args.slot.k + from + at));
    Round(args.V, row * view.heads_kv * d + at, *reinterpret_cast<const float2*>(args.slot.v + from + at));
  }
  for (int head = threadIdx.x; head < view.heads_kv; head += kThreads) {
    args.log_G[row * view.heads_kv + head] = args.slot.log_g[from + head];
  }
}

// Grid (monomials / warps, head): a warp per monomial (i, j), whose row stands twice in a tile that holds (j, i) too.
// kUnpacks: from S to the slot, else the other way.
template <int d, bool kUnpacks>
__global__ void __launch_bounds__(kThreads) MoveState(SlotBulkArgs args) {
  const SlotView& view = args.slot.view;
  const int m = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y;
  if (m >= view.expanded) return;
  const SlotHead slot(view, args.memory, args.slot.layer_idx, head);
  const uchar2 pair = args.slot.pairs[m];
  const int i = pair.x, j = pair.y;
  constexpr int64_t kRows = RetentionStateRows(d);
  const int64_t first = head * kRows + RetentionStateRow(i, j, d);
  const int64_t second = head * kRows + (i / 8 == j / 8 ? RetentionStateRow(j, i, d) : RetentionStateRow(i, j, d));
  const float factor = i == j ? 1.0f : kUnpacks ? 2.0f : 0.5f;
  const PanelMatrix<d> state = {slot.State(), view.expanded};
  if (lane < d / 4) {
    float4* const in_slot = const_cast<float4*>(state.Address(m, lane * 4));
    float4* const padded = reinterpret_cast<float4*>(args.S + first * d) + lane;
    float4 x = kUnpacks ? *padded : *in_slot;
    x = make_float4(factor * x.x, factor * x.y, factor * x.z, factor * x.w);
    *(kUnpacks ? in_slot : padded) = x;
    if (!kUnpacks && second != first) *(reinterpret_cast<float4*>(args.S + second * d) + lane) = x;
  }
  if (lane > 0) return;
  if (kUnpacks) {
    slot.Normalizer()[m] = factor * args.z[first];
    if (m == 0) slot.header()->folded_chunks = args.folded_after;
  } else {
    args.z[first] = args.z[second] = factor * slot.Normalizer()[m];
  }
}

template <bool kUnpacks>
absl::Status LaunchMove(const SlotBulkArgs& args, int d, cudaStream_t stream) {
  const dim3 grid((args.slot.view.expanded + kWarps - 1) / kWarps, args.slot.view.heads_kv);
  if (d == 64) {
    MoveState<64, kUnpacks><<<grid, kThreads, 0, stream>>>(args);
  } else {
    MoveState<128, kUnpacks><<<grid, kThreads, 0, stream>>>(args);
  }
  return LaunchStatus("MoveState");
}

}  // namespace

absl::Status LaunchSlotPack(const SlotBulkArgs& args, int d, bool holds_state, cudaStream_t stream) {
  const unsigned grid = static_cast<unsigned>(args.rows);
  if (d == 64) {
    PackRows<64><<<grid, kThreads, 0, stream>>>(args);
  } else {
    PackRows<128><<<grid, kThreads, 0, stream>>>(args);
  }
  if (absl::Status status = LaunchStatus("PackRows"); !status.ok() || !holds_state) return status;
  return LaunchMove<false>(args, d, stream);
}

absl::Status LaunchSlotUnpackState(const SlotBulkArgs& args, int d, cudaStream_t stream) {
  return LaunchMove<true>(args, d, stream);
}

}  // namespace statehouse::kernels
