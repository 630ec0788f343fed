// How a register tile reads packed weights: widened on the fly, or unpacked into a float panel that stays in the L1
// cache. int8 weights become floats without their scale, which each tile applies once per block of inputs: the
// multiplication per weight would cost as much as the product itself where there are few rows.

#if defined(STATEHOUSE_KERNELS_MATMUL_PANELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STATEHOUSE_KERNELS_MATMUL_PANELS_INL_H_
#undef STATEHOUSE_KERNELS_MATMUL_PANELS_INL_H_
#else
#define STATEHOUSE_KERNELS_MATMUL_PANELS_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/math/simd-inl.h"
#include "kernels/matmul/panel_layout.h"
#include "kernels/matmul/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {

struct BF16Panel {
  static constexpr int kColumns = 32;
  static constexpr int kApart = 16;
  static constexpr int64_t kRun = int64_t{1} << 62;
  static constexpr bool kScaled = false;
  const uint32_t* b;

  static HWY_INLINE BF16Panel Of(const std::byte* from) { return {reinterpret_cast<const uint32_t*>(from)}; }
  HWY_INLINE BF16Panel At(int column) const { return {b + column}; }
  HWY_INLINE void Enter(int64_t) {}
  HWY_INLINE void Load(int64_t k, VF& b0, VF& b1) const {
    const auto pair = hn::LoadU(DU(), b + k * 16);
    b0 = hn::BitCast(DF(), hn::ShiftLeft<16>(pair));
    b1 = hn::BitCast(DF(), hn::And(pair, hn::Set(DU(), 0xffff0000u)));
  }
  HWY_INLINE void Prefetch(int64_t k, int64_t ahead) const {
    PrefetchL1(reinterpret_cast<const char*>(b + k * 16) + ahead);
  }
};

struct Int8Panel {
  static constexpr int kColumns = 32;
  static constexpr int kApart = 16;
  static constexpr int64_t kRun = kScaleBlock;
  static constexpr bool kScaled = true;
  const std::byte* from;  // a whole number of blocks into the panel
  int column;
  const int8_t* b;  // of the block that was entered, as are the scales
  VF scale0;
  VF scale1;

  static HWY_INLINE Int8Panel Of(const std::byte* from) { return {from, 0, nullptr, hn::Zero(DF()), hn::Zero(DF())}; }
  HWY_INLINE Int8Panel At(int at_column) const {
    Int8Panel out = *this;
    out.column = at_column;
    return out;
  }
  HWY_INLINE void Enter(int64_t k) {
    const std::byte* block = from + k / kScaleBlock * kInt8BlockBytes;
    const float* scales = reinterpret_cast<const float*>(block) + column;
    b = reinterpret_cast<const int8_t*>(block + kPanelWidth * sizeof(float)) + column;
    scale0 = hn::LoadU(DF(), scales);
    scale1 = hn::LoadU(DF(), scales + kApart);
  }
  HWY_INLINE void Load(int64_t k, VF& b0, VF& b1) const {
    const hn::Rebind<int8_t, DF> d8;
    const int8_t* at = b + k * kPanelWidth;
    b0 = hn::ConvertTo(DF(), hn::PromoteTo(DI(), hn::LoadU(d8, at)));
    b1 = hn::ConvertTo(DF(), hn::PromoteTo(DI(), hn::LoadU(d8, at + kApart)));
  }
  HWY_INLINE void Prefetch(int64_t k, int64_t ahead) const {
    PrefetchL1(reinterpret_cast<const char*>(b + k * kPanelWidth) + ahead);
  }
};

// int8 weights that were unpacked to floats, without their scales.
struct UnpackedInt8Panel {
  static constexpr int kColumns = 32;
  static constexpr int kApart = 16;
  static constexpr int64_t kRun = kScaleBlock;
  static constexpr bool kScaled = true;
  const std::byte* from;  // the packed blocks, for their scales
  const float* unpacked;  // [k][32]
  const float* b;
  VF scale0;
  VF scale1;

  static HWY_INLINE UnpackedInt8Panel Of(const std::byte* from, const float* unpacked) {
    return {from, unpacked, nullptr, hn::Zero(DF()), hn::Zero(DF())};
  }
  HWY_INLINE UnpackedInt8Panel At(int column) const { return Of(from + column * sizeof(float), unpacked + column); }
  HWY_INLINE void Enter(int64_t k) {
    const float* scales = reinterpret_cast<const float*>(from + k / kScaleBlock * kInt8BlockBytes);
    b = unpacked + k * kPanelWidth;
    scale0 = hn::LoadU(DF(), scales);
    scale1 = hn::LoadU(DF(), scales + kApart);
  }
  HWY_INLINE void Load(int64_t k, VF& b0, VF& b1) const {
    b0 = hn::LoadU(DF(), b + k * kPanelWidth);
    b1 = hn::LoadU(DF(), b + k * kPanelWidth + kApart);
  }
  HWY_INLINE void Prefetch(int64_t, int64_t) const {}
};

// Writes the first k inputs of the panel as floats (int8: before scaling), out [k][32], and fetches as many from
// `ahead` bytes behind.
template <class Panel>
HWY_INLINE void UnpackPanel(const Panel& panel, int64_t k, float* out, int64_t ahead) {
  for (int column = 0; column < Panel::kApart; column += kLanes) {
    Panel part = panel.At(column);
    for (int64_t first = 0; first < k; first += Panel::kRun) {
      part.Enter(first);
      const int64_t run = HWY_MIN(Panel::kRun, k - first);
      float* to = out + first * kPanelWidth + column;
      for (int64_t kk = 0; kk < run; ++kk) {
        VF b0;
        VF b1;
        part.Prefetch(kk, ahead);
        part.Load(kk, b0, b1);
        hn::StoreU(b0, DF(), to + kk * kPanelWidth);
        hn::StoreU(b1, DF(), to + kk * kPanelWidth + Panel::kApart);
      }
    }
  }
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard
