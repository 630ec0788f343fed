#include "kernels/power_retention/canonical.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/power_retention/tasks.h"

namespace statehouse::kernels {
namespace {

constexpr int64_t kPanel = 32;
// Sizes that are known when compiled: a move of so many is a few instructions.
constexpr std::integral_constant<int64_t, 1> kOne;
constexpr std::integral_constant<int64_t, kPanel> kWholePanel;
// Of a head that is moved whole: what stays in a core's own cache between the panels.
constexpr int64_t kPartFloats = 32 * 1024;

// Rows of `d` numbers of a matrix that lies in panels (layout.h): move(numbers in the region, place in canonical order,
// how many). Both directions are this one walk, panel by panel, so that the region is passed over in its own order.
template <typename Move>
void MovePanels(const RetentionLayout& layout, float* panels, int64_t panel_rows, int64_t first, int64_t count,
                const Move& move) {
  const int64_t d = layout.shape().head_dim;
  for (int64_t panel = 0; panel < d; panel += kPanel) {
    const int64_t width = std::min(kPanel, layout.padded_dim() - panel);
    float* const values = panels + panel * panel_rows + first * width;
    if (width == kPanel && d - panel >= kPanel) {
      for (int64_t row = 0; row < count; ++row) {
        move(values + row * kPanel, row * d + panel, kWholePanel);
      }
    } else {
      const int64_t used = std::min(width, d - panel);
      for (int64_t row = 0; row < count; ++row) move(values + row * width, row * d + panel, used);
    }
  }
}

// Rows of the tail that lie in one chunk block, one stretch after another: fn(block, first row in it, rows, rows
// before).
template <typename Fn>
void ForEachBlock(const RetentionLayout& layout, float* region, const HeadExtent& extent, const HeadPart& part,
                  const Fn& fn) {
  const int64_t C = layout.shape().chunk;
  for (int64_t done = 0; done < part.count;) {
    const int64_t position = extent.folded + part.first + done;
    const int64_t rows = std::min(part.count - done, C - position % C);
    fn(extent.state_form ? layout.TailBlock(region, 0, position / C) : layout.RowsBlock(region, 0, position / C),
       position % C, rows, done);
    done += rows;
  }
}

// Keys are stored transposed: [d][32 keys] panels.
template <typename Move>
void MoveKeys(const RetentionLayout& layout, float* keys, int64_t first, int64_t count, const Move& move) {
  const int64_t d = layout.shape().head_dim;
  for (int64_t done = 0; done < count;) {
    const int64_t c = first + done;
    const int64_t panel = c / kPanel * kPanel;
    const int64_t width = std::min(kPanel, layout.padded_chunk() - panel);
    const int64_t rows = std::min(count - done, panel + kPanel - c);
    float* const at = keys + panel * d + (c - panel);
    for (int64_t l = 0; l < d; ++l) {
      for (int64_t row = 0; row < rows; ++row) move(at + l * width + row, (done + row) * d + l, kOne);
    }
    done += rows;
  }
}

// Calls move(numbers in the region, place among the part's canonical numbers, how many) for all of a part.
template <typename Move>
void MovePart(const RetentionLayout& layout, float* region, const HeadExtent& extent, const HeadPart& part,
              const Move& move) {
  const int64_t d = layout.shape().head_dim;
  switch (part.array) {
    case HeadPart::Array::kState:
      MovePanels(layout, layout.State(region, 0), layout.expanded(), part.first, part.count, move);
      break;
    case HeadPart::Array::kNormalizer:
      move(layout.Normalizer(region, 0) + part.first, 0, part.count);
      break;
    case HeadPart::Array::kKeys:
      ForEachBlock(layout, region, extent, part, [&](float* block, int64_t first, int64_t rows, int64_t before) {
        MoveKeys(layout, layout.BlockK(block), first, rows,
                 [&](float* number, int64_t place, auto count) { move(number, before * d + place, count); });
      });
      break;
    case HeadPart::Array::kValues:
      ForEachBlock(layout, region, extent, part, [&](float* block, int64_t first, int64_t rows, int64_t before) {
        MovePanels(layout, layout.BlockV(block), layout.shape().chunk, first, rows,
                   [&](float* numbers, int64_t place, auto count) { move(numbers, before * d + place, count); });
      });
      break;
    case HeadPart::Array::kGates:
      ForEachBlock(layout, region, extent, part, [&](float* block, int64_t first, int64_t rows, int64_t before) {
        for (int64_t row = 0; row < rows; ++row) {
          move(layout.BlockL(block) + first + row, 2 * (before + row), kOne);
          move(layout.BlockLRest(block) + first + row, 2 * (before + row) + 1, kOne);
        }
      });
      break;
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

std::vector<HeadPart> PartsOf(const RetentionLayout& layout, const HeadExtent& extent, int64_t most_floats) {
  std::vector<HeadPart> parts;
  const auto add = [&](HeadPart::Array array, int64_t rows, int64_t row_floats) {
    const int64_t most_rows = std::max<int64_t>(1, most_floats / row_floats);
    for (int64_t first = 0; first < rows; first += most_rows) {
      const int64_t count = std::min(most_rows, rows - first);
      parts.push_back({array, first, count, count * row_floats});
    }
  };
  const int64_t d = layout.shape().head_dim;
  if (extent.folded > 0) {
    add(HeadPart::Array::kState, layout.expanded(), d);
    add(HeadPart::Array::kNormalizer, layout.expanded(), 1);
  }
  add(HeadPart::Array::kKeys, extent.num_rows, d);
  add(HeadPart::Array::kValues, extent.num_rows, d);
  add(HeadPart::Array::kGates, extent.num_rows, 2);
  return parts;
}

void ExportPart(const RetentionLayout& layout, const float* region, const HeadExtent& extent, const HeadPart& part,
                float* canonical) {
  // Addresses are computed for writing; the region is only read.
  MovePart(layout, const_cast<float*>(region), extent, part,
           [canonical](const float* numbers, int64_t place, auto count) {
             std::memcpy(canonical + place, numbers, static_cast<size_t>(count) * sizeof(float));
           });
}

void ImportPart(const RetentionLayout& layout, const float* canonical, const HeadExtent& extent, const HeadPart& part,
                float* region) {
  MovePart(layout, region, extent, part, [canonical](float* numbers, int64_t place, auto count) {
    std::memcpy(numbers, canonical + place, static_cast<size_t>(count) * sizeof(float));
  });
}

void ImportHeader(const RetentionLayout& layout, const HeadExtent& extent, float* region) {
  layout.WriteHeader(region, 0,
                     {.folded_chunks = extent.folded / layout.shape().chunk,
                      .in_state_form = extent.state_form && layout.has_switch_over() ? 1 : 0});
}

void ExportHead(const RetentionLayout& layout, const float* region, const HeadExtent& extent, float* canonical) {
  for (const HeadPart& part : PartsOf(layout, extent, kPartFloats)) {
    ExportPart(layout, region, extent, part, canonical);
    canonical += part.floats;
  }
}

void ImportHead(const RetentionLayout& layout, const float* canonical, const HeadExtent& extent, float* region) {
  ImportHeader(layout, extent, region);
  for (const HeadPart& part : PartsOf(layout, extent, kPartFloats)) {
    ImportPart(layout, canonical, extent, part, region);
    canonical += part.floats;
  }
}

}  // namespace statehouse::kernels
