// FillDummyTensors(): weights for sizing and benchmarks, when only config.json is at hand.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/math/aligned_buffer.h"
#include "models/content_hash.h"
#include "models/element.h"
#include "models/weight_loader.h"

namespace statehouse {
namespace {

// SplitMix64 (Steele, Lea, Flood 2014): 64 well-mixed bits from a counter.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Uniform in (-limit, limit), four to one draw of 64 bits.
void FillRow(uint64_t seed, float limit, int64_t size, uint16_t* out) {
  for (int64_t i = 0; i < size; i += 4) {
    uint64_t bits = Mix(seed + static_cast<uint64_t>(i));
    for (int64_t lane = i; lane < std::min(i + 4, size); ++lane, bits >>= 16) {
      const float unit = (static_cast<float>(bits & 0xffffu) - 32767.5f) * (1.0f / 32768.0f);
      out[lane] = FloatToBf16(unit * limit);
    }
  }
}

absl::Status FillMatrix(const TensorSpec& spec, uint64_t seed, LoadOptions::DType dtype, kernels::ThreadPool& pool) {
  const int64_t rows = spec.shape[0];
  const int64_t cols = spec.shape[1];
  kernels::AlignedBuffer values;
  if (!values.Allocate(rows * cols * 2)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("dummy tensor ", spec.name, ": no memory for ", rows * cols * 2, " bytes"));
  }
  // A uniform distribution on (-a, a) has the standard deviation a / sqrt(3).
  const float limit = spec.dummy * std::sqrt(3.0f / static_cast<float>(cols));
  uint16_t* out = values.as<uint16_t>();
  pool.Run(rows, [&](int64_t row, int) {
    FillRow(Mix(seed ^ Mix(static_cast<uint64_t>(row))), limit, cols, out + row * cols);
  });
  const kernels::SourceMatrix source = {out, kernels::SourceType::kBF16, rows, cols};
  absl::Status status;
  if (spec.sink != nullptr) {
    status = spec.sink->Accept(source, pool);
  } else {
    kernels::WeightType type = kernels::WeightType::kBF16;
    if (dtype == LoadOptions::DType::kF32) type = kernels::WeightType::kF32;
    if (dtype == LoadOptions::DType::kInt8 && spec.int8_mode == Int8Mode::kQuantise) type = kernels::WeightType::kInt8;
    auto packed = kernels::PackedMatrix::Pack(source, type, pool);
    status = packed.status();
    if (packed.ok()) *spec.matrix = *std::move(packed);
  }
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("dummy tensor ", spec.name, ": ", std::string(status.message())));
}

}  // namespace

absl::StatusOr<uint64_t> FillDummyTensors(const TensorTable& table, const LoadOptions& options,
                                          kernels::ThreadPool& pool) {
  int64_t bytes_total = 0;
  for (const TensorSpec& spec : table.specs()) bytes_total += spec.optional ? 0 : spec.num_elements() * 2;
  int64_t bytes_done = 0;
  for (const TensorSpec& spec : table.specs()) {
    if (spec.optional) continue;
    ContentHash name_hash;
    name_hash.AddNumber(options.dummy_seed);
    name_hash.AddText(spec.name);
    if (spec.vector != nullptr) {
      spec.vector->assign(spec.num_elements(), spec.dummy);
    } else if (absl::Status status = FillMatrix(spec, name_hash.Digest(), options.dtype, pool); !status.ok()) {
      return status;
    }
    bytes_done += spec.num_elements() * 2;
    if (options.progress) options.progress(bytes_done, bytes_total);
  }
  ContentHash hash;
  hash.AddText("dummy weights");
  hash.AddNumber(options.dummy_seed);
  return hash.Digest();
}

}  // namespace statehouse
