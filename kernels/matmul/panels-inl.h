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
  static constexpr int64_t kRun = int64_t{1} << 62;
  static constexpr bool kScaled = false;
  const uint32_t* b;

  static HWY_INLINE BF16Panel Of(const std::byte* from) { return {reinterpret_cast<const uint32_t*>(from)}; }
  // A word holds two columns, 16 apart.
  static constexpr int Column(int vector) { return vector / 2 * kLanes + vector % 2 * 16; }
  HWY_INLINE BF16Panel At(int vector) const { return {b + vector / 2 * kLanes}; }
  HWY_INLINE void Enter(int64_t) {}
  HWY_INLINE VF Scale(int) const { return hn::Zero(DF()); }
  template <int kVectors>
  HWY_INLINE void Load(int64_t k, VF (&out)[kVectors]) const {
    static_assert(kVectors % 2 == 0);
    HWY_UNROLL(2)
    for (int v = 0; v < kVectors; v += 2) {
      const auto pair = hn::LoadU(DU(), b + k * 16 + v / 2 * kLanes);
      out[v] = hn::BitCast(DF(), hn::ShiftLeft<16>(pair));
      out[v + 1] = hn::BitCast(DF(), hn::And(pair, hn::Set(DU(), 0xffff0000u)));
    }
  }
};

struct Int8Panel {
  static constexpr int kColumns = 32;
  static constexpr int64_t kRun = kScaleBlock;
  static constexpr bool kScaled = true;
  const std::byte* from;  // a whole number of blocks into the panel
  int column;
  const int8_t* b;  // of the block that was entered, as are the scales
  const float* scales;

  static HWY_INLINE Int8Panel Of(const std::byte* from) { return {from, 0, nullptr, nullptr}; }
  static constexpr int Column(int vector) { return vector * kLanes; }
  HWY_INLINE Int8Panel At(int vector) const { return {from, column + Column(vector), nullptr, nullptr}; }
  HWY_INLINE void Enter(int64_t k) {
    const std::byte* block = from + k / kScaleBlock * kInt8BlockBytes;
    scales = reinterpret_cast<const float*>(block) + column;
    b = reinterpret_cast<const int8_t*>(block + kPanelWidth * sizeof(float)) + column;
  }
  HWY_INLINE VF Scale(int vector) const { return hn::LoadU(DF(), scales + Column(vector)); }
  template <int kVectors>
  HWY_INLINE void Load(int64_t k, VF (&out)[kVectors]) const {
    const hn::Rebind<int8_t, DF> d8;
    HWY_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) {
      out[v] = hn::ConvertTo(DF(), hn::PromoteTo(DI(), hn::LoadU(d8, b + k * kPanelWidth + Column(v))));
    }
  }
};

// int8 weights that were unpacked to floats, without their scales.
struct UnpackedInt8Panel {
  static constexpr int kColumns = 32;
  static constexpr int64_t kRun = kScaleBlock;
  static constexpr bool kScaled = true;
  const std::byte* from;  // the packed blocks, for their scales
  const float* unpacked;  // [k][32]
  const float* b;
  const float* scales;

  static HWY_INLINE UnpackedInt8Panel Of(const std::byte* from, const float* unpacked) {
    return {from, unpacked, nullptr, nullptr};
  }
  static constexpr int Column(int vector) { return vector * kLanes; }
  HWY_INLINE UnpackedInt8Panel At(int vector) const {
    return Of(from + Column(vector) * sizeof(float), unpacked + Column(vector));
  }
  HWY_INLINE void Enter(int64_t k) {
    scales = reinterpret_cast<const float*>(from + k / kScaleBlock * kInt8BlockBytes);
    b = unpacked + k * kPanelWidth;
  }
  HWY_INLINE VF Scale(int vector) const { return hn::LoadU(DF(), scales + Column(vector)); }
  template <int kVectors>
  HWY_INLINE void Load(int64_t k, VF (&out)[kVectors]) const {
    HWY_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) out[v] = hn::LoadU(DF(), b + k * kPanelWidth + Column(v));
  }
};

// Writes the first k inputs of the panel as floats (int8: before scaling), out [k][32].
template <class Panel>
HWY_INLINE void UnpackPanel(const Panel& panel, int64_t k, float* out) {
  for (int vector = 0; vector < kPanelWidth / kLanes; vector += 2) {
    Panel part = panel.At(vector);
    for (int64_t first = 0; first < k; first += Panel::kRun) {
      part.Enter(first);
      const int64_t run = HWY_MIN(Panel::kRun, k - first);
      float* to = out + first * kPanelWidth + Panel::Column(vector);
      for (int64_t kk = 0; kk < run; ++kk) {
        VF b[2];
        part.Load(kk, b);
        hn::StoreU(b[0], DF(), to + kk * kPanelWidth);
        hn::StoreU(b[1], DF(), to + kk * kPanelWidth + Panel::Column(1));
      }
    }
  }
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard
