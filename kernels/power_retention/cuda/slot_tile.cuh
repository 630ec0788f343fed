// The product that folds and answers share: 4 x (d / 16) elements of coef[k][.]ᵀ B[k][.] per thread, k in order.
//
// Threads form 16 columns of kRows / 4 rows: thread t holds rows 4 (t / 16) … and the columns of ColumnOf().
#pragma once

#include "kernels/power_retention/cuda/slot_args.cuh"

namespace statehouse::kernels {

inline constexpr int kTileDepth = 32;  // monomials or keys at a time

template <int d>
struct TileProduct {
  static constexpr int kColumns = d / 16;  // per thread
  static constexpr int kVector = kColumns < 4 ? kColumns : 4;

  static __device__ __forceinline__ int ColumnOf(int j) {
    return (j / kVector) * 16 * kVector + static_cast<int>(threadIdx.x % 16) * kVector + j % kVector;
  }

  template <int kStride>
  static __device__ __forceinline__ void Add(const float* coef, const float* B, int depth, float (&sum)[4][kColumns]) {
    const int row = threadIdx.x / 16 * 4;
#pragma unroll 8
    for (int k = 0; k < depth; ++k) {
      const float4 c = *reinterpret_cast<const float4*>(coef + k * kStride + row);
      const float rows[4] = {c.x, c.y, c.z, c.w};
      float b[kColumns];
#pragma unroll
      for (int j = 0; j < kColumns; j += kVector) {
        const float* from = B + k * d + ColumnOf(j);
        if constexpr (kVector == 4) {
          const float4 four = *reinterpret_cast<const float4*>(from);
          b[j] = four.x, b[j + 1] = four.y, b[j + 2] = four.z, b[j + 3] = four.w;
        } else {
          for (int i = 0; i < kVector; ++i) b[j + i] = from[i];
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < kColumns; ++j) sum[i][j] = fmaf(rows[i], b[j], sum[i][j]);
      }
    }
  }
};

// kTileDepth rows of a panel matrix on their way into shared memory [kTileDepth][d]: read into registers early, stored
// late. Rows from `valid` on are zero.
template <int d, int kThreads>
struct PanelTile {
  static constexpr int kVectors = kTileDepth * d / 4 / kThreads > 0 ? kTileDepth* d / 4 / kThreads : 1;
  float4 held[kVectors];

  static __device__ __forceinline__ bool Place(int i, int* row, int* column) {
    constexpr int kPerRow = PanelMatrix<d>::kWidth / 4;  // vectors of a panel's row
    const int at = i * kThreads + static_cast<int>(threadIdx.x);
    *row = at / kPerRow % kTileDepth;
    *column = at / (kPerRow * kTileDepth) * PanelMatrix<d>::kWidth + at % kPerRow * 4;
    return at < kTileDepth * d / 4;
  }
  __device__ __forceinline__ void Read(const PanelMatrix<d>& from, int64_t first, int valid) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      int row, column;
      held[i] = make_float4(0, 0, 0, 0);
      if (Place(i, &row, &column) && row < valid) held[i] = *from.Address(first + row, column);
    }
  }
  __device__ __forceinline__ void Store(float* B) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      int row, column;
      if (Place(i, &row, &column)) *reinterpret_cast<float4*>(B + row * d + column) = held[i];
    }
  }
};

}  // namespace statehouse::kernels
