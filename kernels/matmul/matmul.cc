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
                              int64_t k, float* sums, int64_t ahead) {
  switch (type) {
    case WeightType::kF32:
      PanelProduct<kRowStride>(rows, a, a_step, FloatPanel<32>{reinterpret_cast<const float*>(weights)}, k, sums,
                               kPanelWidth, ahead);
      return;
    case WeightType::kBF16:
      PanelProduct<kRowStride>(rows, a, a_step, BF16Panel::Of(weights), k, sums, kPanelWidth, ahead);
      return;
    case WeightType::kInt8:
      PanelProduct<kRowStride>(rows, a, a_step, Int8Panel::Of(weights), k, sums, kPanelWidth, ahead);
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

// Bytes between what few rows read and what is fetched meanwhile: enough to hide the latency of memory at its full
// rate.
constexpr int64_t kFewRowsAhead = 8192;
// Rows that need two tiles read a run of weights twice: the second time from L1, if the run is no longer than this.
constexpr int64_t kTwiceReadBytes = 16384;

// One row: nothing to copy, and all of the task's panels are one stream.
void RunOneRow(const MatMulArgs& args, const MatMulTask& task) {
  alignas(64) float sums[kMaxTaskPanels * kPanelWidth] = {};
  const int64_t K = args.weights->cols();
  const int64_t panel_bytes = PanelBytes(args.weights->type(), K);
  const std::byte* panels = args.weights->data() + task.first_panel * panel_bytes;
  for (int64_t panel = 0; panel < task.num_panels; ++panel) {
    PackedProduct</*kRowStride=*/1>(args.weights->type(), 1, args.x + task.first_row * K, 1,
                                    panels + panel * panel_bytes, K, sums + panel * kPanelWidth, kFewRowsAhead);
  }
  StoreSums(args, task, sums);
}

// Up to kFewRows: each weight is read once, in runs as long as the block of x that half an L1 cache holds, which is
// transposed: all rows' inputs for one k lie side by side.
struct alignas(64) FewRowsBuffers {
  static constexpr int64_t kInputs = 4096;
  float x[kInputs];
  float sums[kMaxTaskPanels * kFewRows * kPanelWidth];
};

void RunFewRows(const MatMulArgs& args, const MatMulTask& task) {
  FewRowsBuffers buffers;
  const WeightType type = args.weights->type();
  int64_t block_k = FewRowsBuffers::kInputs / task.num_rows / kScaleBlock * kScaleBlock;
  if (task.num_rows > kTileRows)
    block_k = HWY_MIN(block_k, kTwiceReadBytes / PanelBytes(type, kScaleBlock) * kScaleBlock);
  const int64_t K = args.weights->cols();
  const int64_t panel_bytes = PanelBytes(type, K);
  const std::byte* panels = args.weights->data() + task.first_panel * panel_bytes;
  const int64_t panel_sums = task.num_rows * kPanelWidth;
  std::memset(buffers.sums, 0, task.num_panels * panel_sums * sizeof(float));
  for (int64_t k0 = 0; k0 < K; k0 += block_k) {
    const int64_t k = HWY_MIN(block_k, K - k0);
    for (int64_t row = 0; row < task.num_rows; ++row) {
      const float* x = args.x + (task.first_row + row) * K + k0;
      for (int64_t i = 0; i < k; ++i) buffers.x[i * task.num_rows + row] = x[i];
    }
    for (int64_t panel = 0; panel < task.num_panels; ++panel) {
      PackedProduct</*kRowStride=*/1>(type, task.num_rows, buffers.x, task.num_rows,
                                      panels + panel * panel_bytes + PanelOffset(type, k0), k,
                                      buffers.sums + panel * panel_sums, kFewRowsAhead);
    }
  }
  StoreSums(args, task, buffers.sums);
}

// Many rows: a block of a panel is widened to floats once and stays in L1, where each tile of rows meets it. Rows of x
// lie a little more than a block apart, so that they do not fall into the same cache sets.
struct alignas(64) ManyRowsBuffers {
  static constexpr int64_t kBlockK = 128;
  static constexpr int kRowStride = kBlockK + 16;
  static_assert(kBlockK % kScaleBlock == 0);
  float x[kMaxTaskRows * kRowStride];
  float panel[kBlockK * kPanelWidth];
  float sums[kMaxTaskPanels * kMaxTaskRows * kPanelWidth];
};

// The panel's next block is fetched meanwhile: it is needed after the other panels of the task had theirs.
void RunManyRows(const MatMulArgs& args, const MatMulTask& task) {
  constexpr int64_t kBlockK = ManyRowsBuffers::kBlockK;
  constexpr int kRowStride = ManyRowsBuffers::kRowStride;
  ManyRowsBuffers buffers;
  const WeightType type = args.weights->type();
  const int64_t K = args.weights->cols();
  const int64_t panel_bytes = PanelBytes(type, K);
  const int64_t ahead = PanelOffset(type, kBlockK);
  const std::byte* panels = args.weights->data() + task.first_panel * panel_bytes;
  const int64_t panel_sums = task.num_rows * kPanelWidth;
  std::memset(buffers.sums, 0, task.num_panels * panel_sums * sizeof(float));
  for (int64_t k0 = 0; k0 < K; k0 += kBlockK) {
    const int64_t k = HWY_MIN(kBlockK, K - k0);
    for (int64_t row = 0; row < task.num_rows; ++row) {
      std::memcpy(buffers.x + row * kRowStride, args.x + (task.first_row + row) * K + k0, k * sizeof(float));
    }
    for (int64_t panel = 0; panel < task.num_panels; ++panel) {
      const std::byte* block = panels + panel * panel_bytes + PanelOffset(type, k0);
      float* sums = buffers.sums + panel * panel_sums;
      const auto add = [&](const auto& floats, int64_t fetch) HWY_ATTR {
        PanelProduct<kRowStride>(task.num_rows, buffers.x, 1, floats, k, sums, kPanelWidth, fetch);
      };
      switch (type) {
        case WeightType::kF32:
          add(FloatPanel<32>{reinterpret_cast<const float*>(block)}, ahead);
          break;
        case WeightType::kBF16:
          UnpackPanel(BF16Panel::Of(block), k, buffers.panel, ahead);
          add(FloatPanel<32>{buffers.panel}, 0);
          break;
        case WeightType::kInt8:
          UnpackPanel(Int8Panel::Of(block), k, buffers.panel, ahead);
          add(UnpackedInt8Panel::Of(block, buffers.panel), 0);
          break;
      }
    }
  }
  StoreSums(args, task, buffers.sums);
}

void RunMatMulTask(const MatMulArgs& args, const MatMulTask& task) {
  if (task.num_rows == 1) {
    RunOneRow(args, task);
  } else if (task.num_rows <= kFewRows) {
    RunFewRows(args, task);
  } else {
    RunManyRows(args, task);
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
