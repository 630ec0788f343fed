#include "engine/state/snapshot_encoding.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/sampling/philox.h"

namespace statehouse {
namespace {

using kernels::HeadExtent;
using kernels::RetentionLayout;

constexpr float kMostInt8 = 127.0f;

// Calls lossy(floats from the start of the layer, rows of d) and exact(floats from there, number of them), in order.
template <typename Lossy, typename Exact>
void ForEachArray(const RetentionLayout& layout, std::span<const HeadExtent> extents, const Lossy& lossy,
                  const Exact& exact) {
  const int64_t d = layout.shape().head_dim;
  int64_t at = 0;
  for (const HeadExtent& extent : extents) {
    if (extent.folded > 0) {
      lossy(at, layout.expanded());
      at += layout.expanded() * d;
      exact(at, layout.expanded());
      at += layout.expanded();
    }
    lossy(at, 2 * extent.num_rows);  // K, then V
    at += 2 * extent.num_rows * d;
    exact(at, 2 * extent.num_rows);
    at += 2 * extent.num_rows;
  }
}

// 32 random bits of each number.
class Noise {
 public:
  Noise(uint64_t seed, int64_t layer)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}, layer_(static_cast<uint32_t>(layer)) {}
  uint32_t At(int64_t number) {
    const int64_t block = number / 4;
    if (block != block_) {
      words_ = Philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), layer_, 0}, key_);
      block_ = block;
    }
    return words_[static_cast<size_t>(number % 4)];
  }

 private:
  const PhiloxKey key_;
  const uint32_t layer_;
  int64_t block_ = -1;
  PhiloxCounter words_{};
};

uint16_t ToBf16(float value, uint32_t noise) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = bits + (noise & 0xFFFF);
  // Rounding up from the largest number would make it infinite.
  constexpr uint32_t kExponent = 0x7F800000;
  return static_cast<uint16_t>(((rounded & kExponent) == kExponent ? bits : rounded) >> 16);
}

int8_t ToInt8(float value, float scale, uint32_t noise) {
  if (scale == 0) return 0;
  const float up = static_cast<float>(noise >> 8) * 0x1p-24f;  // [0, 1)
  return static_cast<int8_t>(std::clamp(std::floor(value / scale + up), -kMostInt8, kMostInt8));
}

}  // namespace

int64_t BytesPerNumber(StateEncoding encoding) {
  return encoding == StateEncoding::kInt8 ? 1 : encoding == StateEncoding::kBf16 ? 2 : 4;
}

int64_t LossyRows(const RetentionLayout& layout, std::span<const HeadExtent> extents) {
  int64_t sum = 0;
  ForEachArray(
      layout, extents, [&sum](int64_t, int64_t rows) { sum += rows; }, [](int64_t, int64_t) {});
  return sum;
}

int64_t ExactFloats(const RetentionLayout& layout, std::span<const HeadExtent> extents) {
  int64_t sum = 0;
  ForEachArray(
      layout, extents, [](int64_t, int64_t) {}, [&sum](int64_t, int64_t floats) { sum += floats; });
  return sum;
}

absl::StatusOr<EncodedLayer> EncodeLayer(StateEncoding encoding, std::span<const float> canonical,
                                         const RetentionLayout& layout, std::span<const HeadExtent> extents,
                                         uint64_t seed, int64_t layer) {
  const int64_t d = layout.shape().head_dim;
  const int64_t all_rows = LossyRows(layout, extents);
  EncodedLayer encoded;
  encoded.numbers.resize(static_cast<size_t>(all_rows * d * BytesPerNumber(encoding)));
  if (encoding == StateEncoding::kInt8) encoded.scales.resize(static_cast<size_t>(all_rows));
  encoded.exact.reserve(static_cast<size_t>(ExactFloats(layout, extents)));
  Noise noise(seed, layer);
  int64_t row_idx = 0;
  bool all_finite = true;
  const auto add_row = [&](const float* row) {
    float largest = 0;
    for (int64_t col = 0; col < d; ++col) {
      all_finite = all_finite && std::isfinite(row[col]);
      largest = std::max(largest, std::abs(row[col]));
    }
    if (!all_finite) return;
    std::byte* const to = encoded.numbers.data() + row_idx * d * BytesPerNumber(encoding);
    // A scale below the smallest number would be 0, and its inverse no number.
    const float scale = largest / kMostInt8;
    if (encoding == StateEncoding::kInt8) encoded.scales[static_cast<size_t>(row_idx)] = scale;
    for (int64_t col = 0; col < d; ++col) {
      const uint32_t bits = noise.At(row_idx * d + col);
      if (encoding == StateEncoding::kInt8) {
        to[col] = static_cast<std::byte>(ToInt8(row[col], scale, bits));
      } else {
        const uint16_t half = ToBf16(row[col], bits);
        std::memcpy(to + 2 * col, &half, sizeof(half));
      }
    }
    ++row_idx;
  };
  ForEachArray(
      layout, extents,
      [&](int64_t at, int64_t rows) {
        for (int64_t row = 0; row < rows; ++row) add_row(canonical.data() + at + row * d);
      },
      [&](int64_t at, int64_t floats) {
        encoded.exact.insert(encoded.exact.end(), canonical.data() + at, canonical.data() + at + floats);
      });
  if (all_finite) return encoded;
  return absl::FailedPreconditionError(
      absl::StrCat("layer ", layer, " holds a number that is not finite, which only an exact file can store"));
}

void DecodeLayer(StateEncoding encoding, const EncodedLayerView& encoded, const RetentionLayout& layout,
                 std::span<const HeadExtent> extents, float* canonical) {
  const int64_t d = layout.shape().head_dim;
  const std::byte* numbers = encoded.numbers.data();
  const float* scale = encoded.scales.data();
  const float* exact = encoded.exact.data();
  ForEachArray(
      layout, extents,
      [&](int64_t at, int64_t rows) {
        for (int64_t row = 0; row < rows; ++row) {
          float* const to = canonical + at + row * d;
          for (int64_t col = 0; col < d; ++col, numbers += BytesPerNumber(encoding)) {
            if (encoding == StateEncoding::kInt8) {
              to[col] = *scale * static_cast<float>(static_cast<int8_t>(*numbers));
            } else {
              uint16_t half = 0;
              std::memcpy(&half, numbers, sizeof(half));
              to[col] = std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
            }
          }
          if (encoding == StateEncoding::kInt8) ++scale;
        }
      },
      [&](int64_t at, int64_t floats) {
        std::copy(exact, exact + floats, canonical + at);
        exact += floats;
      });
}

}  // namespace statehouse
