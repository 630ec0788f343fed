// Units of 16 bytes, four per thread under way at a time, blocks in turn over each slot.
#include "kernels/power_retention/cuda/decode_slots.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kTogether = 4;
constexpr int64_t kUnit = 16;
constexpr int kMaxBlocks = 1024;  // of one slot

int BlocksFor(int64_t units) {
  const int64_t blocks = (units + kThreads * kTogether - 1) / (kThreads * kTogether);
  return static_cast<int>(std::clamp<int64_t>(blocks, 1, kMaxBlocks));
}

struct ForkKernelArgs {
  const char* const* from;
  char* const* to;
  const int64_t* positions;
  const int64_t* state_ends;
  int64_t keys, gates, bytes;  // offsets within a slot, and its size
  int64_t keys_bytes;          // from keys() to values()
  int64_t row_bytes;           // of K and V
  int64_t heads_kv, tail_rows;
};

// Is the unit at byte `at` of a slot part of what the sequence holds?
__device__ __forceinline__ bool IsHeld(const ForkKernelArgs& args, int64_t at, int64_t state_end, int64_t num_rows) {
  if (at < args.keys) return state_end > 0;                                 // S and z
  if (at >= args.gates) return true;                                        // few
  const int64_t row = (at - args.keys) % args.keys_bytes / args.row_bytes;  // of all heads
  if (row >= args.heads_kv * args.tail_rows) return false;                  // padding
  const int64_t behind = row % args.tail_rows - state_end % args.tail_rows;
  return (behind < 0 ? behind + args.tail_rows : behind) < num_rows;
}

// Grid (blocks, pairs).
__global__ void __launch_bounds__(kThreads) ForkSlots(ForkKernelArgs args) {
  const int pair = blockIdx.y;
  const char* from = args.from[pair];
  char* to = args.to[pair];
  const int64_t state_end = args.state_ends[pair], num_rows = args.positions[pair] - state_end;
  const int64_t units = args.bytes / kUnit, turn = int64_t{gridDim.x} * kThreads * kTogether;
  for (int64_t first = int64_t{blockIdx.x} * kThreads * kTogether + threadIdx.x; first < units; first += turn) {
    uint4 loaded[kTogether];
    bool is_held[kTogether];
#pragma unroll
    for (int u = 0; u < kTogether; ++u) {
      const int64_t unit = first + u * kThreads;
      is_held[u] = unit < units && IsHeld(args, unit * kUnit, state_end, num_rows);
      if (is_held[u]) loaded[u] = __ldcs(reinterpret_cast<const uint4*>(from) + unit);
    }
#pragma unroll
    for (int u = 0; u < kTogether; ++u) {
      if (is_held[u]) reinterpret_cast<uint4*>(to)[first + u * kThreads] = loaded[u];
    }
  }
}

// Grid (blocks, slots).
__global__ void __launch_bounds__(kThreads) ZeroSlots(char* const* slots, int64_t first_unit, int64_t last_unit) {
  uint4* slot = reinterpret_cast<uint4*>(slots[blockIdx.y]);
  for (int64_t unit = first_unit + int64_t{blockIdx.x} * kThreads + threadIdx.x; unit < last_unit;
       unit += int64_t{gridDim.x} * kThreads) {
    slot[unit] = {};
  }
}

}  // namespace

absl::Status CudaRetentionForkSlots(const RetentionSlotLayout& layout, const CudaRetentionForkArgs& args,
                                    cudaStream_t stream) {
  if (args.num_pairs == 0) return absl::OkStatus();
  if (args.from == nullptr || args.to == nullptr || args.positions == nullptr || args.state_ends == nullptr) {
    return absl::InvalidArgumentError("power retention fork: from, to, positions or state_ends is null");
  }
  const CudaRetentionSlotShape& shape = layout.shape();
  ForkKernelArgs out = {};
  out.from = args.from;
  out.to = args.to;
  out.positions = args.positions;
  out.state_ends = args.state_ends;
  out.keys = static_cast<int64_t>(layout.keys());
  out.gates = static_cast<int64_t>(layout.gates());
  out.bytes = static_cast<int64_t>(layout.bytes());
  out.keys_bytes = static_cast<int64_t>(layout.values() - layout.keys());
  out.row_bytes = int64_t{shape.head_dim} * (shape.dtype == RetentionDtype::kFloat32 ? 4 : 2);
  out.heads_kv = shape.heads_kv;
  out.tail_rows = shape.tail_rows;
  ForkSlots<<<dim3(BlocksFor(out.bytes / kUnit), args.num_pairs), kThreads, 0, stream>>>(out);
  return LaunchStatus("ForkSlots");
}

absl::Status CudaRetentionZeroSlots(const RetentionSlotLayout& layout, char* const* slots, int num_slots, size_t begin,
                                    size_t end, cudaStream_t stream) {
  if (begin > end || end > layout.bytes() || begin % kUnit != 0 || end % kUnit != 0) {
    return absl::InvalidArgumentError(absl::StrCat("bytes [", begin, ", ", end, "): must lie within the slot's ",
                                                   layout.bytes(), " and be multiples of ", kUnit));
  }
  if (num_slots == 0 || begin == end) return absl::OkStatus();
  if (slots == nullptr) return absl::InvalidArgumentError("power retention zero: slots is null");
  const int64_t first = static_cast<int64_t>(begin) / kUnit, last = static_cast<int64_t>(end) / kUnit;
  ZeroSlots<<<dim3(BlocksFor(last - first), num_slots), kThreads, 0, stream>>>(slots, first, last);
  return LaunchStatus("ZeroSlots");
}

}  // namespace statehouse::kernels
