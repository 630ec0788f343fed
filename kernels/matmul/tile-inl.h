// The one register tile that all matrix work shares: C[rows, width] += A[rows, k] · B[k, width], where B is a panel of
// 32 (or 16) columns. Each element is one chain of fused multiply-adds over k, continued from what C holds, so cutting
// k into blocks, or rows into tiles, changes no bit. (Weights with scales: one chain per run of k that shares a scale,
// times the scale.)

#if defined(STATEHOUSE_KERNELS_MATMUL_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STATEHOUSE_KERNELS_MATMUL_TILE_INL_H_
#undef STATEHOUSE_KERNELS_MATMUL_TILE_INL_H_
#else
#define STATEHOUSE_KERNELS_MATMUL_TILE_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/math/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {

// Rows of the largest tile: with two vectors per row, 24 of AVX-512's 32 registers or 12 of AVX2's 16 hold sums.
inline constexpr int kTileRows = kLanes == 16 ? 12 : 6;

HWY_INLINE void PrefetchL1(const char* address) { __builtin_prefetch(address, /*rw=*/0, /*locality=*/3); }

// Two vectors of a float panel per k: columns c … and c + kApart ….
template <int kWidth>
struct FloatPanel {
  static constexpr int kColumns = kWidth;
  // How far apart the two vectors of a tile lie. Bits do not depend on it; bf16 wants 16 in a panel of 32.
  static constexpr int kApart = kWidth == 32 ? 16 : kLanes;
  // Every so many k Enter() is called, and Load() counts from there.
  static constexpr int64_t kRun = int64_t{1} << 62;
  // Whether a run is summed by itself and added to C times the panel's scale0 and scale1, as int8 weights are.
  static constexpr bool kScaled = false;
  const float* b;

  HWY_INLINE FloatPanel At(int column) const { return {b + column}; }
  HWY_INLINE void Enter(int64_t) {}
  HWY_INLINE void Load(int64_t k, VF& b0, VF& b1) const {
    b0 = hn::LoadU(DF(), b + k * kWidth);
    b1 = hn::LoadU(DF(), b + k * kWidth + kApart);
  }
  HWY_INLINE void Prefetch(int64_t k, int64_t ahead) const {
    PrefetchL1(reinterpret_cast<const char*>(b + k * kWidth) + ahead);
    if constexpr (kWidth == 32 && kLanes == 16) PrefetchL1(reinterpret_cast<const char*>(b + k * kWidth + 16) + ahead);
  }
};

// kRowStride: floats from a row of A to the next. a_step: floats from one k to the next. While k is read, what lies
// `ahead` bytes behind it is fetched (0: nothing is): short runs of memory are over before the hardware has noticed
// them.
template <int kRows, int kRowStride, class Panel>
HWY_INLINE void TileOf(const float* HWY_RESTRICT a, int64_t a_step, Panel panel, int64_t k, float* HWY_RESTRICT c,
                       int64_t c_stride, int64_t ahead) {
  const DF df;
  VF sum0[kRows];
  VF sum1[kRows];
  for (int64_t first = 0; first < k; first += Panel::kRun) {
    panel.Enter(first);
    HWY_UNROLL(12)
    for (int row = 0; row < kRows; ++row) {
      sum0[row] = Panel::kScaled ? hn::Zero(df) : hn::LoadU(df, c + row * c_stride);
      sum1[row] = Panel::kScaled ? hn::Zero(df) : hn::LoadU(df, c + row * c_stride + Panel::kApart);
    }
    const int64_t run = HWY_MIN(Panel::kRun, k - first);
    for (int64_t kk = 0; kk < run; ++kk) {
      VF b0;
      VF b1;
      if (ahead != 0) panel.Prefetch(kk, ahead);
      panel.Load(kk, b0, b1);
      HWY_UNROLL(12)
      for (int row = 0; row < kRows; ++row) {
        const VF a_row = hn::Set(df, a[row * kRowStride]);
        sum0[row] = hn::MulAdd(a_row, b0, sum0[row]);
        sum1[row] = hn::MulAdd(a_row, b1, sum1[row]);
      }
      a += a_step;
    }
    HWY_UNROLL(12)
    for (int row = 0; row < kRows; ++row) {
      float* c0 = c + row * c_stride;
      float* c1 = c0 + Panel::kApart;
      if constexpr (Panel::kScaled) {
        sum0[row] = hn::MulAdd(sum0[row], panel.scale0, hn::LoadU(df, c0));
        sum1[row] = hn::MulAdd(sum1[row], panel.scale1, hn::LoadU(df, c1));
      }
      hn::StoreU(sum0[row], df, c0);
      hn::StoreU(sum1[row], df, c1);
    }
  }
}

// The same with one vector per row: a panel of 16 where a vector has 16 lanes.
template <int kRows, int kRowStride>
HWY_INLINE void NarrowTileOf(const float* HWY_RESTRICT a, int64_t a_step, const float* b, int64_t k,
                             float* HWY_RESTRICT c, int64_t c_stride) {
  const DF df;
  VF sum[kRows];
  HWY_UNROLL(12)
  for (int row = 0; row < kRows; ++row) sum[row] = hn::LoadU(df, c + row * c_stride);
  for (int64_t kk = 0; kk < k; ++kk) {
    const VF b0 = hn::LoadU(df, b + kk * 16);
    HWY_UNROLL(12)
    for (int row = 0; row < kRows; ++row) sum[row] = hn::MulAdd(hn::Set(df, a[row * kRowStride]), b0, sum[row]);
    a += a_step;
  }
  HWY_UNROLL(12)
  for (int row = 0; row < kRows; ++row) hn::StoreU(sum[row], df, c + row * c_stride);
}

// Calls fn.template Call<rows>(first_row) for a last tile of fewer than kTileRows rows.
template <int kRows, class Fn>
HWY_INLINE void LastTile(int64_t rows, int64_t first_row, const Fn& fn) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      fn.template Call<kRows>(first_row);
    } else {
      LastTile<kRows - 1>(rows, first_row, fn);
    }
  }
}

// Covers `rows` with as few tiles as there can be: each reads all of B.
template <class Fn>
HWY_INLINE void ForEachTile(int64_t rows, const Fn& fn) {
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) fn.template Call<kTileRows>(row);
  LastTile<kTileRows - 1>(rows - row, row, fn);
}

template <int kRowStride, class Panel>
struct TileCall {
  const float* a;
  int64_t a_step;
  Panel panel;
  int64_t k;
  float* c;
  int64_t c_stride;
  int64_t ahead;

  template <int kRows>
  HWY_INLINE void Call(int64_t row) const {
    TileOf<kRows, kRowStride>(a + row * kRowStride, a_step, panel, k, c + row * c_stride, c_stride, ahead);
  }
};

template <int kRowStride>
struct NarrowTileCall {
  const float* a;
  int64_t a_step;
  const float* b;
  int64_t k;
  float* c;
  int64_t c_stride;

  template <int kRows>
  HWY_INLINE void Call(int64_t row) const {
    NarrowTileOf<kRows, kRowStride>(a + row * kRowStride, a_step, b, k, c + row * c_stride, c_stride);
  }
};

// C[rows, kColumns] += A · panel.
template <int kRowStride, class Panel>
HWY_INLINE void PanelProduct(int64_t rows, const float* a, int64_t a_step, const Panel& panel, int64_t k, float* c,
                             int64_t c_stride, int64_t ahead) {
  for (int column = 0; column < Panel::kColumns; column += kLanes) {
    if (column % (2 * Panel::kApart) >= Panel::kApart) continue;  // the second vector of an earlier tile
    ForEachTile(rows, TileCall<kRowStride, Panel>{a, a_step, panel.At(column), k, c + column, c_stride, ahead});
  }
}

// A float panel of 32 or 16 columns, as retention has them.
template <int kRowStride>
HWY_INLINE void FloatPanelProduct(int64_t width, int64_t rows, const float* a, int64_t a_step, const float* b,
                                  int64_t k, float* c, int64_t c_stride, int64_t ahead = 0) {
  if (width == 32) {
    PanelProduct<kRowStride>(rows, a, a_step, FloatPanel<32>{b}, k, c, c_stride, ahead);
  } else if constexpr (kLanes == 16) {
    ForEachTile(rows, NarrowTileCall<kRowStride>{a, a_step, b, k, c, c_stride});
  } else {
    PanelProduct<kRowStride>(rows, a, a_step, FloatPanel<16>{b}, k, c, c_stride, ahead);
  }
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard
