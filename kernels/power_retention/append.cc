// Writes new rows into their chunk block.
#include <algorithm>
#include <cstring>

#include "kernels/power_retention/tasks.h"

namespace statehouse::kernels {
namespace {

// e^-200 is 0 in float32 beside anything: a lower gate changes nothing, and sums of clamped gates keep their precision.
constexpr double kLowestGate = -200.0;

}  // namespace

void AppendRows(const RetentionLayout& layout, const RetentionRows& rows, int head, int64_t first_row, int64_t num_rows,
                int64_t position) {
  const int64_t d = layout.shape().head_dim;
  const int64_t C = layout.shape().chunk;
  const int64_t Hk = layout.shape().heads_kv;
  float* block = ChunkBlock(layout, layout.ReadHeader(rows.memory, head), rows.memory, head, position / C);
  float* K = layout.BlockK(block);
  float* V = layout.BlockV(block);
  const int64_t first_c = position % C;
  double gate_sum = first_c == 0 ? 0.0 : GateSum(layout, block, first_c - 1);
  for (int64_t i = 0; i < num_rows; ++i) {
    const int64_t c = first_c + i;
    const int64_t source = ((first_row + i) * Hk + head) * d;
    const int64_t key_panel = c / 32 * 32;
    const int64_t key_width = std::min<int64_t>(32, layout.padded_chunk() - key_panel);
    float* key = K + key_panel * d + c % 32;
    for (int64_t l = 0; l < d; ++l) key[l * key_width] = rows.k[source + l];
    for (int64_t panel = 0; panel < layout.padded_dim(); panel += 32) {
      const int64_t width = std::min<int64_t>(32, layout.padded_dim() - panel);
      const int64_t count = std::min(width, d - panel);
      float* value = V + panel * C + c * width;
      std::memcpy(value, rows.v + source + panel, count * sizeof(float));
      std::fill(value + count, value + width, 0.0f);
    }
    if (rows.log_g != nullptr) {
      gate_sum += std::max(static_cast<double>(rows.log_g[(first_row + i) * Hk + head]), kLowestGate);
    }
    const float rounded = static_cast<float>(gate_sum);
    layout.BlockL(block)[c] = rounded;
    layout.BlockLRest(block)[c] = static_cast<float>(gate_sum - static_cast<double>(rounded));
    gate_sum = GateSum(layout, block, c);  // what a later call would read back
  }
}

}  // namespace statehouse::kernels
