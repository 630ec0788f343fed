// A slot's layout as kernels see it: the numbers of a RetentionLayout by value, and addresses formed from them.
#pragma once

#include <cstdint>

#include "kernels/power_retention/layout.h"

namespace statehouse::kernels {

struct SlotView {
  int64_t head_floats, layer_floats, normalizer, ring, block_floats, block_v, block_l;  // floats
  int32_t chunk, padded_chunk;
  int32_t expanded;  // D
  int32_t heads_kv, group;
  float scale;
  int32_t degree;
  bool has_state, from_start;  // from_start: the switch-over is 0, so every head is in state form

  static SlotView Of(const RetentionLayout& layout) {
    const RetentionShape& shape = layout.shape();
    return {.head_floats = layout.head_floats(),
            .layer_floats = layout.layer_floats(),
            .normalizer = layout.normalizer_offset(),
            .ring = layout.ring_offset(),
            .block_floats = layout.block_floats(),
            .block_v = layout.block_v_offset(),
            .block_l = layout.block_l_offset(),
            .chunk = static_cast<int32_t>(shape.chunk),
            .padded_chunk = static_cast<int32_t>(layout.padded_chunk()),
            .expanded = static_cast<int32_t>(layout.expanded()),
            .heads_kv = shape.heads_kv,
            .group = layout.group(),
            .scale = shape.scale,
            .degree = shape.degree,
            .has_state = layout.has_state(),
            .from_start = layout.has_state() && shape.switch_over == 0};
  }
};

#ifdef __CUDACC__

// One head's region.
struct SlotHead {
  const SlotView& view;
  float* base;

  __device__ SlotHead(const SlotView& view, float* slot, int64_t layer_idx, int head)
      : view(view), base(slot + layer_idx * view.layer_floats + head * view.head_floats) {}

  __device__ RetentionHeader* header() const { return reinterpret_cast<RetentionHeader*>(base); }
  __device__ bool HoldsState() const { return view.has_state && (view.from_start || header()->in_state_form != 0); }
  __device__ float* State() const { return base + RetentionLayout::kHeaderFloats; }
  __device__ float* Normalizer() const { return base + view.normalizer; }
  __device__ float* RowsBlock(int64_t chunk_idx) const {
    return base + RetentionLayout::kHeaderFloats + chunk_idx * view.block_floats;
  }
  __device__ float* Block(int64_t chunk_idx, bool holds_state) const {
    return holds_state ? base + view.ring + (chunk_idx & 1) * view.block_floats : RowsBlock(chunk_idx);
  }
};

// Sum of the log gates of a chunk's rows 0 … c.
__device__ __forceinline__ double GateSum(const SlotView& view, const float* block, int c) {
  return static_cast<double>(block[view.block_l + c]) +
         static_cast<double>(block[view.block_l + view.padded_chunk + c]);
}

// e^-200 is 0 in float32 beside anything: a lower gate changes nothing, and sums of clamped gates keep their precision.
inline constexpr double kLowestGate = -200.0;

// A sum of log gates as a block keeps it: a float and the remainder that it cannot hold.
struct RoundedGateSum {
  float sum = 0, rest = 0;

  RoundedGateSum() = default;
  __device__ RoundedGateSum(float sum, float rest) : sum(sum), rest(rest) {}
  explicit __device__ RoundedGateSum(double exact)
      : sum(static_cast<float>(exact)), rest(static_cast<float>(exact - static_cast<double>(sum))) {}
  // What GateSum() reads back.
  __device__ double Value() const { return static_cast<double>(sum) + static_cast<double>(rest); }
  __device__ void Store(const SlotView& view, float* block, int c) const {
    block[view.block_l + c] = sum;
    block[view.block_l + view.padded_chunk + c] = rest;
  }
};

// Where key c, lane-contiguous over 32 keys, begins in a block's K: element l is l * KeyWidth() further on.
__device__ __forceinline__ int KeyWidth(const SlotView& view, int c) { return min(32, view.padded_chunk - (c & ~31)); }
template <int d>
__device__ __forceinline__ int64_t KeyOffset(int c) {
  return int64_t{c & ~31} * d + (c & 31);
}

#endif  // __CUDACC__

}  // namespace statehouse::kernels
