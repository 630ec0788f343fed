// One head's retention memory as plain row-major arrays: what files hold, whatever machine wrote or reads them.
//
// In this order, all float32, without padding or panels:
//   S [D, d], z [D]   only if anything is folded (RetentionLayout::ExpandedSize() gives D)
//   K [n, d], V [n, d]   the n rows that are not folded, oldest first
//   L [n, 2]   per row, the sum of its chunk's log gates up to and with it: the float nearest to it, and the rest
// Going out and in again gives the same bits. Thread-safety: pure functions of their arguments.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/power_retention/layout.h"

namespace statehouse::kernels {

// What there is of a head.
struct HeadExtent {
  bool state_form = false;  // else rows form: nothing is folded
  int64_t folded = 0;       // positions that the state covers, a multiple of C
  int64_t num_rows = 0;     // n
};

// The extent of a head's region (RetentionLayout::Head()) that holds `position` tokens.
HeadExtent ExtentOf(const RetentionLayout& layout, const float* region, int64_t position);
// INVALID_ARGUMENT names what no sequence of this layout can be.
absl::Status CheckExtent(const RetentionLayout& layout, const HeadExtent& extent);

// Floats of the canonical form. REQUIRES: CheckExtent(), here and below.
int64_t CanonicalFloats(const RetentionLayout& layout, const HeadExtent& extent);
// Floats at the start of a region that the head can have written.
int64_t RegionFloats(const RetentionLayout& layout, const HeadExtent& extent);

// A stretch of the canonical form: whole rows of one of its arrays, so that a head can be moved piece by piece while
// the numbers are in a cache.
struct HeadPart {
  enum class Array : uint8_t { kState, kNormalizer, kKeys, kValues, kGates };
  Array array = Array::kState;
  int64_t first = 0;   // row of the array; a normalizer's row is one float
  int64_t count = 0;   // rows
  int64_t floats = 0;  // of all of them
};
// In canonical order, each of at most `most_floats` (or one row, if that is more).
std::vector<HeadPart> PartsOf(const RetentionLayout& layout, const HeadExtent& extent, int64_t most_floats);

// One part between a region and `part.floats` canonical floats. A region is zero before its first part comes in, and
// its header is written by ImportHeader().
void ExportPart(const RetentionLayout& layout, const float* region, const HeadExtent& extent, const HeadPart& part,
                float* canonical);
void ImportPart(const RetentionLayout& layout, const float* canonical, const HeadExtent& extent, const HeadPart& part,
                float* region);
void ImportHeader(const RetentionLayout& layout, const HeadExtent& extent, float* region);

// All of a head.
void ExportHead(const RetentionLayout& layout, const float* region, const HeadExtent& extent, float* canonical);
// `region` is zero before.
void ImportHead(const RetentionLayout& layout, const float* canonical, const HeadExtent& extent, float* region);

}  // namespace statehouse::kernels
