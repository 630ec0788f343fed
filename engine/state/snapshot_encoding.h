// How the numbers of a layer are stored: exact, or smaller with declared loss. docs/snapshot-format.md is the
// specification. Private to engine/state. Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/state/snapshot_file.h"  // StateEncoding
#include "kernels/power_retention/canonical.h"

namespace statehouse {

// A layer of `extents.size()` heads, one after another.
struct EncodedLayer {
  std::vector<std::byte> numbers;  // S, K and V, 2 bytes each (bf16) or 1 (int8)
  std::vector<float> scales;       // int8: of each row of d numbers
  std::vector<float> exact;        // z and L, which stay as they are: sums of many terms, and exponents
};

// The same, where it lies.
struct EncodedLayerView {
  std::span<const std::byte> numbers;
  std::span<const float> scales;
  std::span<const float> exact;
};

int64_t BytesPerNumber(StateEncoding encoding);
// Of all heads: rows of d numbers that are stored with loss, and floats that are not.
int64_t LossyRows(const kernels::RetentionLayout& layout, std::span<const kernels::HeadExtent> extents);
int64_t ExactFloats(const kernels::RetentionLayout& layout, std::span<const kernels::HeadExtent> extents);

// `canonical` is the layer as kernels/power_retention/canonical.h has it. Rounds up or down at random, by how near each
// is, so that errors do not add up; the noise is a pure function of `seed`, `layer` and the number's place.
// FAILED_PRECONDITION: a number is not finite. REQUIRES: encoding is not kF32.
absl::StatusOr<EncodedLayer> EncodeLayer(StateEncoding encoding, std::span<const float> canonical,
                                         const kernels::RetentionLayout& layout,
                                         std::span<const kernels::HeadExtent> extents, uint64_t seed, int64_t layer);
// The way back. REQUIRES: sizes as above, and room for the canonical floats.
void DecodeLayer(StateEncoding encoding, const EncodedLayerView& encoded, const kernels::RetentionLayout& layout,
                 std::span<const kernels::HeadExtent> extents, float* canonical);

}  // namespace statehouse
