// Tasks own a rectangle of outputs: some rows by some panels. Within a task k advances in blocks; a block of x is
// copied once and meets every panel of the task, and sums wait in a small buffer between blocks (which changes no bit:
// see tile-inl.h).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/matmul.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/math/simd-inl.h"
#include "kernels/matmul/panels-inl.h"
#include "kernels/matmul/tile-inl.h"

#include <algorithm>

#include "kernels/matmul/matmul.h"
#include "kernels/matmul/matmul_task.h"
#include "kernels/matmul/panel_layout.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {

// C[rows, 32] += A · weights, where `weights` points to a block of a packed panel.
template <int kRowStride>
HWY_INLINE void PackedProduct(WeightType type, int64_t rows, const float* a, int64_t a_step, const std::byte* weights,
                              int64_t k, float* sums, Fetch fetch) {
  switch (type) {
    case WeightType::kF32:
      PanelProduct<kRowStride>(rows, a, a_step, FloatPanel<32>{reinterpret_cast<const float*>(weights)}, k, sums,
                               kPanelWidth, fetch);
      return;
    case WeightType::kBF16:
      PanelProduct<kRowStride>(rows, a, a_step, BF16Panel::Of(weights), k, sums, kPanelWidth, fetch);
      return;
    case WeightType::kInt8:
      PanelProduct<kRowStride>(rows, a, a_step, Int8Panel::Of(weights), k, sums, kPanelWidth, fetch);
      return;
  }
}

HWY_INLINE void StoreSums(const MatMulArgs& args, const MatMulTask& task, const float* sums) {
  const int64_t N = args.weights->rows();
  for (int64_t row = 0; row < task.num_rows; ++row) {
    for (int64_t panel = 0; panel < task.num_panels; ++panel) {
      const float* from = sums + (panel * task.num_rows + row) * kPanelWidth;
      for (int64_t lane = 0; lane < kPanelWidth; lane += kGroup) {
        const int64_t n = (task.first_panel + panel) * kPanelWidth + lane;
        const int64_t count = HWY_MIN(N - n, int64_t{kGroup});
        if (count <= 0) break;
        F16 sum = Load16(from + lane);
        if (args.bias != nullptr) sum = Add16(sum, LoadFirst16(args.bias + n, count));
        float* y = args.y + (task.first_row + row) * N + n;
        if (args.output == MatMulOutput::kAdd) sum = Add16(LoadFirst16(y, count), sum);
        StoreFirst16(sum, count, y);
      }
    }
  }
}

// Bytes between what one row reads and what is fetched meanwhile: hides the latency of memory at its full rate.
constexpr int64_t kOneRowAhead = 8192;

// One row: nothing to copy, and all of the task's panels are one stream.
void RunOneRow(const MatMulArgs& args, const MatMulTask& task) {
  alignas(64) float sums[kMaxTaskPanels * kPanelWidth] = {};
  const int64_t K = args.weights->cols();
  const int64_t panel_bytes = PanelBytes(args.weights->type(), K);
  const std::byte* panels = args.weights->data() + task.first_panel * panel_bytes;
  for (int64_t panel = 0; panel < task.num_panels; ++panel) {
    const std::byte* weights = panels + panel * panel_bytes;
    PackedProduct</*kRowStride=*/1>(args.weights->type(), 1, args.x + task.first_row * K, 1, weights, K,
                                    sums + panel * kPanelWidth, {weights + kOneRowAhead, panel_bytes});
  }
  StoreSums(args, task, sums);
}

// More rows: a block of x is copied, rows a little more than a block apart, so that they do not fall into the same
// cache sets. It meets the task's panels one after another; what the next product reads is fetched during this one.
struct alignas(64) RowsBuffers {
  static constexpr int64_t kBlockK = 128;
  static constexpr int kRowStride = kBlockK + 16;
  static_assert(kBlockK % kScaleBlock == 0);
  float x[kMaxTaskRows * kRowStride];
  float panel[kBlockK * kPanelWidth];
  float sums[kMaxTaskPanels * kMaxTaskRows * kPanelWidth];
};

// Few rows widen weights as they read them; many read a block that was widened to floats once and stays in L1.
HWY_INLINE void AddBlock(WeightType type, int64_t rows, RowsBuffers& buffers, const std::byte* block, int64_t k,
                         float* sums, Fetch fetch) {
  constexpr int kRowStride = RowsBuffers::kRowStride;
  if (rows <= kFewRows || type == WeightType::kF32) {
    PackedProduct<kRowStride>(type, rows, buffers.x, 1, block, k, sums, fetch);
  } else if (type == WeightType::kBF16) {
    UnpackPanel(BF16Panel::Of(block), k, buffers.panel);
    PanelProduct<kRowStride>(rows, buffers.x, 1, FloatPanel<32>{buffers.panel}, k, sums, kPanelWidth, fetch);
  } else {
    UnpackPanel(Int8Panel::Of(block), k, buffers.panel);
    PanelProduct<kRowStride>(rows, buffers.x, 1, UnpackedInt8Panel::Of(block, buffers.panel), k, sums, kPanelWidth,
                             fetch);
  }
}

void RunRows(const MatMulArgs& args, const MatMulTask& task) {
  RowsBuffers buffers;
  const WeightType type = args.weights->type();
  const int64_t K = args.weights->cols();
  const int64_t panel_bytes = PanelBytes(type, K);
  const std::byte* panels = args.weights->data() + task.first_panel * panel_bytes;
  const int64_t panel_sums = task.num_rows * kPanelWidth;
  std::memset(buffers.sums, 0, task.num_panels * panel_sums * sizeof(float));
  for (int64_t k0 = 0; k0 < K; k0 += RowsBuffers::kBlockK) {
    const int64_t k = HWY_MIN(RowsBuffers::kBlockK, K - k0);
    for (int64_t row = 0; row < task.num_rows; ++row) {
      std::memcpy(buffers.x + row * RowsBuffers::kRowStride, args.x + (task.first_row + row) * K + k0,
                  k * sizeof(float));
    }
    for (int64_t panel = 0; panel < task.num_panels; ++panel) {
      const std::byte* block = panels + panel * panel_bytes + PanelOffset(type, k0);
      const std::byte* next = panel + 1 < task.num_panels ? block + panel_bytes : panels + PanelOffset(type, k0 + k);
      AddBlock(type, task.num_rows, buffers, block, k, buffers.sums + panel * panel_sums, {next, PanelBytes(type, k)});
    }
  }
  StoreSums(args, task, buffers.sums);
}

void RunMatMulTask(const MatMulArgs& args, const MatMulTask& task) {
  if (task.num_rows == 1) {
    RunOneRow(args, task);
  } else {
    RunRows(args, task);
  }
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace statehouse::kernels {
HWY_EXPORT(RunMatMulTask);

void MatMul(const MatMulArgs& args, ThreadPool& pool) {
  const auto run_task = &HWY_DYNAMIC_DISPATCH(RunMatMulTask);
  const MatMulPlan plan = PlanMatMul(args.num_rows, NumPanels(args.weights->rows()), pool.num_threads());
  pool.Run(plan.num_tasks(), [&](int64_t task_idx, int) { run_task(args, plan.Task(task_idx)); });
}

}  // namespace statehouse::kernels
#endif  // HWY_ONCE
