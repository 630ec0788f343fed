// Tasks own a rectangle of outputs: some rows by some panels. Within a task k advances in blocks; a block of x is copied once
// and meets every panel of the task, and sums wait in a small buffer between blocks (which changes no bit: see tile-inl.h).
// Few rows read each packed weight once, widening it on the way; many rows unpack a block of a panel into L1 first.
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

// A block of x: row stride a little more than the block, so that rows do not fall into the same cache sets.
inline constexpr int64_t kBlockK = 128;
inline constexpr int kRowStride = kBlockK + 16;
static_assert(kBlockK % kScaleBlock == 0);

struct alignas(64) TaskBuffers {
  float x[kMaxTaskRows * kRowStride];
  float panel[kBlockK * kPanelWidth];
  float sums[kMaxTaskPanels * kMaxTaskRows * kPanelWidth];
};

HWY_INLINE void AddBlock(WeightType type, const std::byte* panel, int64_t k0, int64_t k, int64_t rows, TaskBuffers& buffers,
                         float* sums) {
  const std::byte* block = panel + PanelOffset(type, k0);
  // Up to one tile of rows meets each weight once: nothing is gained by unpacking it first.
  const bool unpack = rows > kTileRows;
  switch (type) {
    case WeightType::kF32:
      PanelProduct<kRowStride>(rows, buffers.x, 1, FloatPanel<32>{reinterpret_cast<const float*>(block)}, k, sums, kPanelWidth);
      return;
    case WeightType::kBF16: {
      const BF16Panel weights{reinterpret_cast<const uint32_t*>(block)};
      if (!unpack) {
        PanelProduct<kRowStride>(rows, buffers.x, 1, weights, k, sums, kPanelWidth);
        return;
      }
      UnpackPanel(weights, k, buffers.panel);
      break;
    }
    case WeightType::kInt8:
      for (int64_t first = 0; first < k; first += kScaleBlock, block += kInt8BlockBytes) {
        const int64_t count = HWY_MIN(kScaleBlock, k - first);
        const Int8Block weights = Int8Block::Of(block);
        if (unpack) {
          UnpackPanel(weights, count, buffers.panel + first * kPanelWidth);
        } else {
          PanelProduct<kRowStride>(rows, buffers.x + first, 1, weights, count, sums, kPanelWidth);
        }
      }
      if (!unpack) return;
      break;
  }
  PanelProduct<kRowStride>(rows, buffers.x, 1, FloatPanel<32>{buffers.panel}, k, sums, kPanelWidth);
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

void RunMatMulTask(const MatMulArgs& args, const MatMulTask& task) {
  TaskBuffers buffers;
  const WeightType type = args.weights->type();
  const int64_t K = args.weights->cols();
  const int64_t panel_bytes = PanelBytes(type, K);
  const std::byte* panels = args.weights->data() + task.first_panel * panel_bytes;
  const int64_t panel_sums = task.num_rows * kPanelWidth;
  std::memset(buffers.sums, 0, task.num_panels * panel_sums * sizeof(float));
  for (int64_t k0 = 0; k0 < K; k0 += kBlockK) {
    const int64_t k = HWY_MIN(kBlockK, K - k0);
    for (int64_t row = 0; row < task.num_rows; ++row) {
      std::memcpy(buffers.x + row * kRowStride, args.x + (task.first_row + row) * K + k0, k * sizeof(float));
    }
    for (int64_t panel = 0; panel < task.num_panels; ++panel) {
      AddBlock(type, panels + panel * panel_bytes, k0, k, task.num_rows, buffers, buffers.sums + panel * panel_sums);
    }
  }
  StoreSums(args, task, buffers.sums);
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
