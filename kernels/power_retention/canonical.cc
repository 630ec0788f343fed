#include "kernels/power_retention/canonical.h"

#include <algorithm>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/power_retention/tasks.h"

namespace statehouse::kernels {
namespace {

// Walks over every number of a head in canonical order: fn(number in the region). T is float or const float, so that
// both directions are one walk.
template <typename T, typename Fn>
void ForEachNumber(const RetentionLayout& layout, T* region, const HeadExtent& extent, const Fn& fn) {
  // Addresses are computed for writing; a const region is only read.
  float* const base = const_cast<std::remove_const_t<T>*>(region);
  const int64_t d = layout.shape().head_dim;
  const int64_t C = layout.shape().chunk;
  const int64_t D = layout.expanded();
  const auto row = [&](T* panels, int64_t panel_rows, int64_t idx) {
    for (int64_t panel = 0; panel < d; panel += 32) {
      const int64_t width = std::min<int64_t>(32, layout.padded_dim() - panel);
      T* const values = panels + panel * panel_rows + idx * width;
      for (int64_t column = 0; column < std::min(width, d - panel); ++column) fn(values[column]);
    }
  };
  if (extent.folded > 0) {
    for (int64_t i = 0; i < D; ++i) row(layout.State(base, 0), D, i);
    T* const z = layout.Normalizer(base, 0);
    for (int64_t i = 0; i < D; ++i) fn(z[i]);
  }
  const auto block_of = [&](int64_t position) {
    return extent.state_form ? layout.TailBlock(base, 0, position / C) : layout.RowsBlock(base, 0, position / C);
  };
  const int64_t end = extent.folded + extent.num_rows;
  for (int64_t position = extent.folded; position < end; ++position) {
    const int64_t c = position % C;
    const int64_t panel = c / 32 * 32;
    const int64_t width = std::min<int64_t>(32, layout.padded_chunk() - panel);
    T* const key = layout.BlockK(block_of(position)) + panel * d + c % 32;
    for (int64_t l = 0; l < d; ++l) fn(key[l * width]);
  }
  for (int64_t position = extent.folded; position < end; ++position) {
    row(layout.BlockV(block_of(position)), C, position % C);
  }
  for (int64_t position = extent.folded; position < end; ++position) {
    fn(layout.BlockL(block_of(position))[position % C]);
    fn(layout.BlockLRest(block_of(position))[position % C]);
  }
}

}  // namespace

HeadExtent ExtentOf(const RetentionLayout& layout, const float* region, int64_t position) {
  const RetentionHeader header = layout.ReadHeader(region, 0);
  HeadExtent extent;
  extent.state_form = HoldsState(layout, header);
  if (extent.state_form) extent.folded = header.folded_chunks * layout.shape().chunk;
  extent.num_rows = position - extent.folded;
  return extent;
}

absl::Status CheckExtent(const RetentionLayout& layout, const HeadExtent& extent) {
  const int64_t C = layout.shape().chunk;
  const auto refuse = [](const char* name, int64_t value, const std::string& expected) {
    return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, "; expected ", expected));
  };
  if (extent.num_rows < 0) return refuse("number of rows", extent.num_rows, "0 or more");
  if (!extent.state_form) {
    if (extent.folded != 0) return refuse("folded positions", extent.folded, "0 where all is rows");
    const int64_t most = layout.max_blocks() * C;
    const bool has_rows_form = !layout.has_state() || layout.shape().switch_over > 0;
    if (!has_rows_form) return refuse("state form", 0, "1: this model keeps a state from the start");
    if (extent.num_rows > most) return refuse("number of rows", extent.num_rows, absl::StrCat("at most ", most));
    return absl::OkStatus();
  }
  if (!layout.has_state()) return refuse("state form", 1, "0: this model has no state form");
  if (extent.folded < 0 || extent.folded % C != 0) {
    return refuse("folded positions", extent.folded, absl::StrCat("a multiple of the chunk length ", C));
  }
  if (extent.num_rows > 2 * C) {
    return refuse("number of rows", extent.num_rows, absl::StrCat("at most ", 2 * C, " beside a state"));
  }
  return absl::OkStatus();
}

int64_t CanonicalFloats(const RetentionLayout& layout, const HeadExtent& extent) {
  const int64_t d = layout.shape().head_dim;
  return (extent.folded > 0 ? layout.expanded() * (d + 1) : 0) + extent.num_rows * (2 * d + 2);
}

int64_t RegionFloats(const RetentionLayout& layout, const HeadExtent& extent) {
  if (extent.state_form) return layout.head_floats();
  const int64_t C = layout.shape().chunk;
  return RetentionLayout::kHeaderFloats + (extent.num_rows + C - 1) / C * layout.block_floats();
}

void ExportHead(const RetentionLayout& layout, const float* region, const HeadExtent& extent, float* canonical) {
  ForEachNumber(layout, region, extent, [&canonical](const float& number) { *canonical++ = number; });
}

void ImportHead(const RetentionLayout& layout, const float* canonical, const HeadExtent& extent, float* region) {
  const RetentionHeader header = {.folded_chunks = extent.folded / layout.shape().chunk,
                                  .in_state_form = extent.state_form && layout.shape().switch_over > 0 ? 1 : 0};
  layout.WriteHeader(region, 0, header);
  ForEachNumber(layout, region, extent, [&canonical](float& number) { number = *canonical++; });
}

}  // namespace statehouse::kernels
