// How one matrix product is cut into tasks. Cuts change no bit. Private to kernels/matmul.
#pragma once

#include <algorithm>
#include <cstdint>

namespace statehouse::kernels {

// A block of x [96 rows, 128] takes 54 KB and the sums of 16 panels 192 KB: both stay in a 512 KB L2 cache. Copying a
// block of x costs as much as a few per cent of one panel's product, so a task takes many panels.
inline constexpr int64_t kMaxTaskRows = 96;
inline constexpr int64_t kMaxTaskPanels = 16;
// Up to so many rows the weights' bytes, not arithmetic, are what a task waits for.
inline constexpr int64_t kFewRows = 16;

struct MatMulTask {
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int64_t first_panel = 0;
  int64_t num_panels = 0;
};

struct MatMulPlan {
  int64_t num_rows = 0;
  int64_t num_panels = 0;
  int64_t rows_per_task = 1;
  int64_t panels_per_task = 1;

  int64_t row_tasks() const { return (num_rows + rows_per_task - 1) / rows_per_task; }
  int64_t num_tasks() const { return row_tasks() * ((num_panels + panels_per_task - 1) / panels_per_task); }
  // Row tiles vary fastest, so that consecutive tasks read the same weights.
  MatMulTask Task(int64_t task_idx) const {
    const int64_t first_row = task_idx % row_tasks() * rows_per_task;
    const int64_t first_panel = task_idx / row_tasks() * panels_per_task;
    return {first_row, std::min(rows_per_task, num_rows - first_row), first_panel,
            std::min(panels_per_task, num_panels - first_panel)};
  }
};

inline MatMulPlan PlanMatMul(int64_t num_rows, int64_t num_panels, int num_threads) {
  MatMulPlan plan{.num_rows = num_rows, .num_panels = num_panels};
  // Equal tiles, in whole register tiles of 12 rows.
  const int64_t row_tasks = std::max<int64_t>(1, (num_rows + kMaxTaskRows - 1) / kMaxTaskRows);
  const int64_t rows = (num_rows + row_tasks - 1) / row_tasks;
  plan.rows_per_task = std::clamp<int64_t>((rows + 11) / 12 * 12, 1, kMaxTaskRows);
  // At least four tasks per thread where the shape allows, so that a slow thread holds nobody up.
  const int64_t wanted = (num_panels * plan.row_tasks()) / (4 * num_threads);
  plan.panels_per_task = std::clamp<int64_t>(wanted, 1, kMaxTaskPanels);
  return plan;
}

}  // namespace statehouse::kernels
