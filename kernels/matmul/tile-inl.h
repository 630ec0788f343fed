// The one register tile that all matrix work shares: C[rows, width] += A[rows, k] · B[k, width], where B is a panel of
// 32 (or 16) columns. Each element is one chain of fused multiply-adds over k, continued from what C holds, so cutting
// k into blocks, or rows and columns into tiles, changes no bit. (Weights with scales: one chain per run of k that
// shares a scale, times the scale.)
//
// A product passes over its panel once per register tile. Only the first pass could wait for memory; so each pass
// fetches its share of what is needed next (Fetch), and memory works while arithmetic does.

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
// Up to so many rows a tile takes four vectors per row, where a panel has them: one pass over it, and enough chains to
// hide the latency of an addition.
inline constexpr int kWideRows = 2;

// What to bring into the cache during a product: `bytes` from `from` on. They need not be readable to the end.
struct Fetch {
  const void* from = nullptr;
  int64_t bytes = 0;
};

HWY_INLINE void PrefetchL1(const char* address) { __builtin_prefetch(address, /*rw=*/0, /*locality=*/3); }

// A panel tells how vectors of one k are read. Its vectors are numbered as tiles take them, an even number each where
// there are two; Column(v): where vector v begins. At(v): the panel counted from vector v on. Every kRun k Enter() is
// called, and Load() counts from there. kScaled: a run is summed by itself and added to C times the panel's scales, as
// int8 weights are.
template <int kWidth>
struct FloatPanel {
  static constexpr int kColumns = kWidth;
  static constexpr int64_t kRun = int64_t{1} << 62;
  static constexpr bool kScaled = false;
  const float* b;

  static constexpr int Column(int vector) { return vector * kLanes; }
  HWY_INLINE FloatPanel At(int vector) const { return {b + Column(vector)}; }
  HWY_INLINE void Enter(int64_t) {}
  HWY_INLINE VF Scale(int) const { return hn::Zero(DF()); }
  template <int kVectors>
  HWY_INLINE void Load(int64_t k, VF (&out)[kVectors]) const {
    HWY_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) out[v] = hn::LoadU(DF(), b + k * kWidth + Column(v));
  }
};

// kRowStride: floats from a row of A to the next. a_step: floats from one k to the next. While one k is read,
// fetch_step bytes are fetched, in as many cache lines as a tile's floats of one k take.
template <int kRows, int kVectors, int kRowStride, class Panel>
HWY_INLINE void TileOf(const float* HWY_RESTRICT a, int64_t a_step, Panel panel, int64_t k, float* HWY_RESTRICT c,
                       int64_t c_stride, const char* fetch, int64_t fetch_step) {
  const DF df;
  VF sum[kRows][kVectors];
  for (int64_t first = 0; first < k; first += Panel::kRun) {
    panel.Enter(first);
    HWY_UNROLL(12)
    for (int row = 0; row < kRows; ++row) {
      HWY_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) {
        sum[row][v] = Panel::kScaled ? hn::Zero(df) : hn::LoadU(df, c + row * c_stride + Panel::Column(v));
      }
    }
    const int64_t run = HWY_MIN(Panel::kRun, k - first);
    for (int64_t kk = 0; kk < run; ++kk) {
      VF b[kVectors];
      PrefetchL1(fetch);
      if constexpr (kVectors * kLanes > 16) PrefetchL1(fetch + fetch_step / 2);
      panel.Load(kk, b);
      HWY_UNROLL(12)
      for (int row = 0; row < kRows; ++row) {
        const VF a_row = hn::Set(df, a[row * kRowStride]);
        HWY_UNROLL(4)
        for (int v = 0; v < kVectors; ++v) sum[row][v] = hn::MulAdd(a_row, b[v], sum[row][v]);
      }
      a += a_step;
      fetch += fetch_step;
    }
    HWY_UNROLL(12)
    for (int row = 0; row < kRows; ++row) {
      HWY_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) {
        float* to = c + row * c_stride + Panel::Column(v);
        if constexpr (Panel::kScaled) sum[row][v] = hn::MulAdd(sum[row][v], panel.Scale(v), hn::LoadU(df, to));
        hn::StoreU(sum[row][v], df, to);
      }
    }
  }
}

// C[rows, kColumns] += A · panel, tile by tile.
template <int kRowStride, class Panel>
class PanelProductOf {
 public:
  HWY_INLINE PanelProductOf(int64_t rows, const float* a, int64_t a_step, const Panel& panel, int64_t k, float* c,
                            int64_t c_stride, Fetch fetch)
      : rows_(rows), a_(a), a_step_(a_step), panel_(panel), k_(k), c_(c), c_stride_(c_stride) {
    const int64_t steps = HWY_MAX(int64_t{1}, NumTiles() * k);
    // Nothing to fetch: the first input again and again.
    fetch_ = fetch.bytes > 0 ? static_cast<const char*>(fetch.from) : reinterpret_cast<const char*>(a);
    fetch_step_ = (fetch.bytes + steps - 1) / steps;
  }

  HWY_INLINE void Run() {
    int64_t row = 0;
    for (; row + kTileRows <= rows_; row += kTileRows) Tiles<kTileRows>(row);
    LastTiles<kTileRows - 1>(row);
  }

 private:
  static constexpr int kPanelVectors = Panel::kColumns / kLanes;
  static constexpr int VectorsOf(int rows) { return HWY_MIN(kPanelVectors, rows <= kWideRows ? 4 : 2); }
  static constexpr int ColumnTiles(int rows) { return kPanelVectors / VectorsOf(rows); }

  HWY_INLINE int64_t NumTiles() const {
    const int last_rows = static_cast<int>(rows_ % kTileRows);
    return rows_ / kTileRows * ColumnTiles(kTileRows) + (last_rows == 0 ? 0 : ColumnTiles(last_rows));
  }

  template <int kRows>
  HWY_INLINE void Tiles(int64_t row) {
    constexpr int kVectors = VectorsOf(kRows);
    for (int first = 0; first < kPanelVectors; first += kVectors) {
      TileOf<kRows, kVectors, kRowStride>(a_ + row * kRowStride, a_step_, panel_.At(first), k_,
                                          c_ + row * c_stride_ + Panel::Column(first), c_stride_, fetch_, fetch_step_);
      fetch_ += fetch_step_ * k_;
    }
  }

  // The last tile of fewer than kTileRows rows.
  template <int kRows>
  HWY_INLINE void LastTiles(int64_t row) {
    if constexpr (kRows > 0) {
      if (rows_ - row == kRows) {
        Tiles<kRows>(row);
      } else {
        LastTiles<kRows - 1>(row);
      }
    }
  }

  const int64_t rows_;
  const float* const a_;
  const int64_t a_step_;
  const Panel panel_;
  const int64_t k_;
  float* const c_;
  const int64_t c_stride_;
  const char* fetch_;
  int64_t fetch_step_;
};

template <int kRowStride, class Panel>
HWY_INLINE void PanelProduct(int64_t rows, const float* a, int64_t a_step, const Panel& panel, int64_t k, float* c,
                             int64_t c_stride, Fetch fetch) {
  PanelProductOf<kRowStride, Panel>(rows, a, a_step, panel, k, c, c_stride, fetch).Run();
}

// A float panel of 32 or 16 columns, as retention has them.
template <int kRowStride>
HWY_INLINE void FloatPanelProduct(int64_t width, int64_t rows, const float* a, int64_t a_step, const float* b,
                                  int64_t k, float* c, int64_t c_stride, Fetch fetch = {}) {
  if (width == 32) {
    PanelProduct<kRowStride>(rows, a, a_step, FloatPanel<32>{b}, k, c, c_stride, fetch);
  } else {
    PanelProduct<kRowStride>(rows, a, a_step, FloatPanel<16>{b}, k, c, c_stride, fetch);
  }
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard
