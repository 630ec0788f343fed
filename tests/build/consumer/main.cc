// Power retention of one sequence through the library, held against its own reference in double.
#include <cmath>
#include <cstdio>
#include <vector>

#include "kernels/math/aligned_buffer.h"
#include "kernels/parallel/thread_pool.h"
#include "kernels/power_retention/power_retention.h"

namespace {

using statehouse::kernels::AlignedBuffer;
using statehouse::kernels::PowerRetention;
using statehouse::kernels::PowerRetentionQuadraticRef;
using statehouse::kernels::RetentionLayout;
using statehouse::kernels::RetentionRows;
using statehouse::kernels::RetentionScratch;
using statehouse::kernels::ThreadPool;

constexpr int64_t kRows = 100;
constexpr int kHeadsQ = 4, kHeadsKv = 2, kHeadDim = 16;

std::vector<float> Waves(int64_t size, float step) {
  std::vector<float> out(size);
  for (int64_t i = 0; i < size; ++i) out[i] = std::sin(step * static_cast<float>(i + 1));
  return out;
}

}  // namespace

int main() {
  const absl::StatusOr<RetentionLayout> layout = RetentionLayout::Make(
      {.heads_q = kHeadsQ, .heads_kv = kHeadsKv, .head_dim = kHeadDim, .chunk = 16, .switch_over = 0});
  if (!layout.ok()) {
    std::printf("%s\n", layout.status().ToString().c_str());
    return 1;
  }
  ThreadPool pool(2);
  RetentionScratch scratch;
  if (const absl::Status status = scratch.Reserve(*layout, kRows, pool.num_threads()); !status.ok()) {
    std::printf("%s\n", status.ToString().c_str());
    return 1;
  }
  const std::vector<float> q = Waves(kRows * kHeadsQ * kHeadDim, 0.7f), k = Waves(kRows * kHeadsKv * kHeadDim, 1.3f);
  const std::vector<float> v = Waves(kRows * kHeadsKv * kHeadDim, 2.1f);
  const std::vector<float> log_g(kRows * kHeadsKv, -0.01f);
  std::vector<float> y(q.size());
  AlignedBuffer memory;
  if (!memory.Allocate(layout->layer_floats() * static_cast<int64_t>(sizeof(float)))) return 1;
  const RetentionRows rows = {.q = q.data(),
                              .k = k.data(),
                              .v = v.data(),
                              .log_g = log_g.data(),
                              .y = y.data(),
                              .memory = memory.as<float>(),
                              .num_rows = kRows};
  PowerRetention(*layout, {&rows, 1}, scratch, pool);

  std::vector<double> want(y.size());
  PowerRetentionQuadraticRef({.Q = q.data(),
                              .K = k.data(),
                              .V = v.data(),
                              .log_G = log_g.data(),
                              .Y = want.data(),
                              .t = kRows,
                              .heads_q = kHeadsQ,
                              .heads_kv = kHeadsKv,
                              .head_dim = kHeadDim,
                              .degree = 2,
                              .scale = 1 / std::sqrt(static_cast<double>(kHeadDim))});
  double error = 0, norm = 0;
  for (size_t i = 0; i < y.size(); ++i) error += (y[i] - want[i]) * (y[i] - want[i]), norm += want[i] * want[i];
  std::printf("relative error %.1e\n", std::sqrt(error / norm));
  return error <= 1e-10 * norm ? 0 : 1;
}
