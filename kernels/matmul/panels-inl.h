// How a register tile reads packed weights: widened on the fly, or unpacked into a float panel that stays in the L1 cache.

#if defined(STATEHOUSE_KERNELS_MATMUL_PANELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STATEHOUSE_KERNELS_MATMUL_PANELS_INL_H_
#undef STATEHOUSE_KERNELS_MATMUL_PANELS_INL_H_
#else
#define STATEHOUSE_KERNELS_MATMUL_PANELS_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/math/simd-inl.h"
#include "kernels/matmul/panel_layout.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {

struct BF16Panel {
  static constexpr int kColumns = 32;
  static constexpr int kApart = 16;
  const uint32_t* b;

  HWY_INLINE BF16Panel At(int column) const { return {b + column}; }
  HWY_INLINE void Load(int64_t k, VF& b0, VF& b1) const {
    const auto pair = hn::LoadU(DU(), b + k * 16);
    b0 = hn::BitCast(DF(), hn::ShiftLeft<16>(pair));
    b1 = hn::BitCast(DF(), hn::And(pair, hn::Set(DU(), 0xffff0000u)));
  }
};

// One block of kScaleBlock inputs.
struct Int8Block {
  static constexpr int kColumns = 32;
  static constexpr int kApart = 16;
  const float* scales;
  const int8_t* b;
  VF scale0;
  VF scale1;

  static HWY_INLINE Int8Block Of(const std::byte* block) {
    const float* scales = reinterpret_cast<const float*>(block);
    return Make(scales, reinterpret_cast<const int8_t*>(block + kPanelWidth * sizeof(float)));
  }
  static HWY_INLINE Int8Block Make(const float* scales, const int8_t* b) {
    return {scales, b, hn::LoadU(DF(), scales), hn::LoadU(DF(), scales + kApart)};
  }
  HWY_INLINE Int8Block At(int column) const { return Make(scales + column, b + column); }
  HWY_INLINE void Load(int64_t k, VF& b0, VF& b1) const {
    const hn::Rebind<int8_t, DF> d8;
    const int8_t* from = b + k * kPanelWidth;
    b0 = hn::Mul(hn::ConvertTo(DF(), hn::PromoteTo(DI(), hn::LoadU(d8, from))), scale0);
    b1 = hn::Mul(hn::ConvertTo(DF(), hn::PromoteTo(DI(), hn::LoadU(d8, from + kApart))), scale1);
  }
};

template <class Panel>
HWY_INLINE void UnpackPanel(const Panel& panel, int64_t k, float* out) {
  for (int column = 0; column < Panel::kApart; column += kLanes) {
    const Panel part = panel.At(column);
    for (int64_t kk = 0; kk < k; ++kk) {
      VF b0;
      VF b1;
      part.Load(kk, b0, b1);
      hn::StoreU(b0, DF(), out + kk * kPanelWidth + column);
      hn::StoreU(b1, DF(), out + kk * kPanelWidth + column + Panel::kApart);
    }
  }
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard
