// How PackedMatrix lays out weights: panels of 32 outputs, each a stream that a matrix product reads once, in order.
//
//   f32   [panel][K][32] float
//   bf16  [panel][K][16] uint32: lane i holds output i in its low half and output i + 16 in its high half, so that a
//   shift
//         and a mask widen it
//   int8  [panel][ceil(K/64)] blocks of { 32 float scales; [64][32] int8 }; the last block is as long as the others,
//   its
//         unused inputs are zero
// Outputs past N are zero. Private to kernels/matmul.
#pragma once

#include <cstdint>

#include "kernels/matmul/matmul.h"

namespace statehouse::kernels {

inline constexpr int64_t kPanelWidth = 32;  // outputs per panel
inline constexpr int64_t kScaleBlock = 64;  // inputs that share one int8 scale per output
inline constexpr int64_t kInt8BlockBytes =
    kPanelWidth * static_cast<int64_t>(sizeof(float)) + kScaleBlock * kPanelWidth;

inline int64_t NumPanels(int64_t rows) { return (rows + kPanelWidth - 1) / kPanelWidth; }

inline int64_t PanelBytes(WeightType type, int64_t cols) {
  switch (type) {
    case WeightType::kF32:
      return cols * kPanelWidth * 4;
    case WeightType::kBF16:
      return cols * kPanelWidth * 2;
    case WeightType::kInt8:
      return (cols + kScaleBlock - 1) / kScaleBlock * kInt8BlockBytes;
  }
  return 0;
}

// Where input `k` of a panel begins. int8: k is a multiple of kScaleBlock.
inline int64_t PanelOffset(WeightType type, int64_t k) { return PanelBytes(type, k); }

}  // namespace statehouse::kernels
