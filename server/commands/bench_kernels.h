// `statehouse bench kernels`: the operators alone, on the GPU if there is one, beside what the device could do at best.
//
// Every combination of the lists is one case (kernels/bench): its result is checked against the definition first, then
// timed; ceilings are measured in the same run. Thread-safety: one run at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/bench/retention_case.h"

namespace statehouse {

struct KernelsBenchOptions {
  std::string pass = "fwd";                             // fwd, bwd, fwd+bwd or decode
  std::string device = "auto";                          // auto, cpu or cuda
  int threads = 0;                                      // of the CPU; 0: one per core
  std::vector<int64_t> batches = {1};                   // sequences
  std::vector<int64_t> lengths = {4096, 16384, 65536};  // rows of each, ascending
  std::vector<int64_t> heads = {8};
  std::vector<int64_t> kv_heads = {};  // empty: as many as heads; else one per entry of heads, or one for all
  std::vector<int64_t> head_dims = {64};
  std::vector<int64_t> chunks = {0};                    // 0: the device's choice
  std::vector<std::string> dtypes = {"auto"};           // auto (bf16 on a GPU, float32 on the CPU), bf16, fp16, float32
  std::vector<std::string> state_dtypes = {"float32"};  // of decode: float32, bf16, int8
  int64_t layers = 1;       // of decode on a GPU: calls captured in one graph, each on states of its own; 1 … 1024
  int64_t runs = 30;        // of each case
  double max_seconds = 10;  // of each case on the CPU, once it has 3 runs
};

struct KernelsBenchFigure {
  kernels::bench::RetentionCase shape;
  kernels::bench::Figure figure;
  double flops = 0, bytes = 0;  // that the task needs
  // Rows (of decode: new tokens) per second.
  double tokens_per_s() const;
};

struct KernelsBenchReport {
  std::string pass;
  std::string device;  // "cuda" or "cpu"
  std::string why;     // why this device, if that was left open
  kernels::bench::Ceilings ceilings;
  std::vector<KernelsBenchFigure> figures;
  std::vector<std::string> skipped;  // what was left out, and why
};

// All combinations. INVALID_ARGUMENT names flag, value and what is allowed. `on_gpu` resolves auto.
absl::StatusOr<std::vector<kernels::bench::RetentionCase>> KernelsBenchCases(const KernelsBenchOptions& options,
                                                                             bool on_gpu);

// Hears of the ceilings, then of each figure. Either may be empty.
struct KernelsBenchObserver {
  std::function<void(const KernelsBenchReport&)> on_start = {};
  std::function<void(const KernelsBenchReport&, const KernelsBenchFigure&)> on_figure = {};
  std::function<void(const char* what, int64_t done, int64_t total)> on_progress = {};
};

// A case without a kernel, or too large for the device, is left out and named; a wrong result ends the run.
absl::StatusOr<KernelsBenchReport> RunKernelsBench(const KernelsBenchOptions& options,
                                                   const KernelsBenchObserver& observer);

// A table: its heading, a line of it, and what follows it.
std::string KernelsBenchHeading(const KernelsBenchReport& report);
std::string KernelsBenchLine(const KernelsBenchReport& report, const KernelsBenchFigure& figure);
std::string KernelsBenchSummary(const KernelsBenchReport& report);
std::string KernelsBenchCsv(const KernelsBenchReport& report);
std::string KernelsBenchJson(const KernelsBenchReport& report);
// Throughput and share of the ceiling against context, as SVG.
std::string KernelsBenchPlot(const KernelsBenchReport& report);

}  // namespace statehouse
