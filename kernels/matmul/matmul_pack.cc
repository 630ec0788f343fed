// Packing at load, and the exact float32 value of every packed weight.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/panel_layout.h"

namespace statehouse::kernels {
namespace {

int64_t ElementBytes(SourceType type) { return type == SourceType::kF32 ? 4 : 2; }

float FromBF16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// Exact: every half is a float.
float FromF16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -subnormal : subnormal;
}

// Round to nearest even. The value is finite; values that round past the largest bf16 become infinite and are refused.
uint16_t ToBF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

void ReadRow(const SourceMatrix& source, int64_t row, float* out) {
  const std::byte* from = static_cast<const std::byte*>(source.data) + row * source.cols * ElementBytes(source.type);
  if (source.type == SourceType::kF32) {
    std::memcpy(out, from, source.cols * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < source.cols; ++i) {
    uint16_t bits;
    std::memcpy(&bits, from + 2 * i, sizeof(bits));
    out[i] = source.type == SourceType::kBF16 ? FromBF16(bits) : FromF16(bits);
  }
}

bool AllFinite(const float* values, int64_t size) {
  uint32_t worst = 0;
  for (int64_t i = 0; i < size; ++i) worst = std::max(worst, std::bit_cast<uint32_t>(values[i]) & 0x7f800000u);
  return worst != 0x7f800000u;
}

void PackRowF32(const float* row, int64_t cols, int64_t lane, std::byte* panel) {
  float* out = reinterpret_cast<float*>(panel) + lane;
  for (int64_t k = 0; k < cols; ++k) out[k * kPanelWidth] = row[k];
}

// False if a value is too large for bf16.
bool PackRowBF16(const float* row, int64_t cols, int64_t lane, std::byte* panel) {
  // Little-endian: the low half of a lane comes first.
  uint16_t* out = reinterpret_cast<uint16_t*>(panel) + (lane % 16) * 2 + lane / 16;
  bool finite = true;
  for (int64_t k = 0; k < cols; ++k) {
    const uint16_t bits = ToBF16(row[k]);
    finite = finite && (bits & 0x7f80) != 0x7f80;
    out[k * kPanelWidth] = bits;
  }
  return finite;
}

void PackRowInt8(const float* row, int64_t cols, int64_t lane, std::byte* panel) {
  for (int64_t first = 0; first < cols; first += kScaleBlock, panel += kInt8BlockBytes) {
    const int64_t count = std::min(kScaleBlock, cols - first);
    float largest = 0;
    for (int64_t k = 0; k < count; ++k) largest = std::max(largest, std::fabs(row[first + k]));
    const float scale = largest / 127.0f;
    reinterpret_cast<float*>(panel)[lane] = scale;
    if (!(scale > 0)) continue;  // the block is all zero (or too small to have a scale)
    int8_t* out = reinterpret_cast<int8_t*>(panel + kPanelWidth * sizeof(float)) + lane;
    for (int64_t k = 0; k < count; ++k) {
      const float quotient = std::clamp(std::nearbyint(row[first + k] / scale), -127.0f, 127.0f);
      out[k * kPanelWidth] = static_cast<int8_t>(quotient);
    }
  }
}

bool PackRow(WeightType type, const float* row, int64_t cols, int64_t lane, std::byte* panel) {
  switch (type) {
    case WeightType::kF32:
      PackRowF32(row, cols, lane, panel);
      return true;
    case WeightType::kBF16:
      return PackRowBF16(row, cols, lane, panel);
    case WeightType::kInt8:
      PackRowInt8(row, cols, lane, panel);
      return true;
  }
  return false;
}

void LowerTo(std::atomic<int64_t>& lowest, int64_t value) {
  int64_t seen = lowest.load(std::memory_order_relaxed);
  while (value < seen && !lowest.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

}  // namespace

const char* WeightTypeName(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return "f32";
    case WeightType::kBF16:
      return "bf16";
    case WeightType::kInt8:
      return "int8";
  }
  return "unknown";
}

absl::StatusOr<PackedMatrix> PackedMatrix::Pack(const SourceMatrix& source, WeightType type, ThreadPool& pool) {
  constexpr int64_t kMaxSize = int64_t{1} << 32;
  if (source.rows < 1 || source.cols < 1 || source.rows > kMaxSize || source.cols > kMaxSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("matrix is ", source.rows, " x ", source.cols, "; both sizes must be at least 1"));
  }
  PackedMatrix packed;
  packed.rows_ = source.rows;
  packed.cols_ = source.cols;
  packed.type_ = type;
  const int64_t panel_bytes = PanelBytes(type, source.cols);
  const int64_t num_panels = NumPanels(source.rows);
  // One row of float32 per thread, to widen and check before packing.
  AlignedBuffer rows;
  const int64_t row_floats = (source.cols + 31) / 32 * 32;
  if (panel_bytes > (int64_t{1} << 48) / num_panels || !packed.data_.Allocate(panel_bytes * num_panels) ||
      !rows.Allocate(row_floats * 4 * pool.num_threads())) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for a ", source.rows, " x ", source.cols, " matrix in ",
                                                     WeightTypeName(type), "; use a smaller --dtype or more memory"));
  }
  std::atomic<int64_t> first_bad_row{source.rows};
  std::byte* data = packed.data_.data();
  pool.Run(num_panels, [&](int64_t panel_idx, int worker_idx) {
    float* row_values = rows.as<float>() + worker_idx * row_floats;
    const int64_t end = std::min(source.rows, (panel_idx + 1) * kPanelWidth);
    for (int64_t row = panel_idx * kPanelWidth; row < end; ++row) {
      ReadRow(source, row, row_values);
      const bool good = AllFinite(row_values, source.cols) &&
                        PackRow(type, row_values, source.cols, row % kPanelWidth, data + panel_idx * panel_bytes);
      if (!good) LowerTo(first_bad_row, row);
    }
  });
  if (first_bad_row < source.rows) {
    return absl::InvalidArgumentError(absl::StrCat(
        "row ", first_bad_row.load(), " holds a NaN, an infinity or a value too large for ", WeightTypeName(type)));
  }
  return packed;
}

void PackedMatrix::UnpackRow(int64_t row, float* out) const {
  const std::byte* panel = data() + row / kPanelWidth * PanelBytes(type_, cols_);
  const int64_t lane = row % kPanelWidth;
  for (int64_t k = 0; k < cols_; ++k) {
    switch (type_) {
      case WeightType::kF32:
        out[k] = reinterpret_cast<const float*>(panel)[k * kPanelWidth + lane];
        break;
      case WeightType::kBF16:
        out[k] = FromBF16(reinterpret_cast<const uint16_t*>(panel)[k * kPanelWidth + (lane % 16) * 2 + lane / 16]);
        break;
      case WeightType::kInt8: {
        const std::byte* block = panel + k / kScaleBlock * kInt8BlockBytes;
        const int8_t* quotients = reinterpret_cast<const int8_t*>(block + kPanelWidth * sizeof(float));
        const float scale = reinterpret_cast<const float*>(block)[lane];
        out[k] = static_cast<float>(quotients[k % kScaleBlock * kPanelWidth + lane]) * scale;
        break;
      }
    }
  }
}

}  // namespace statehouse::kernels
