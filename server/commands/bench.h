// `statehouse bench`: what a model reaches on this machine, beside what the machine could at best.
//
// Prefill and decode by context length and batch size, on bare model steps; memory against context; and, on the engine,
// the gaps between tokens of running streams while a long prompt is prefilled. Floors: decode is bound by the bytes
// that a step must read, at the read bandwidth measured for as many bytes in the same run; prefill by its arithmetic,
// at the measured FMA rate. Thread-safety: one run at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/parallel/thread_pool.h"
#include "models/model.h"

namespace statehouse {

struct BenchOptions {
  std::vector<int64_t> contexts = {4096, 16384, 65536, 131072, 1048576};  // tokens, ascending
  std::vector<int64_t> batches = {1, 4, 16};
  int64_t step_tokens = 512;      // rows of a prompt step
  int64_t min_runs = 20;          // of each figure
  double max_seconds = 10;        // for each figure, once it has min_runs
  int64_t streams = 8;            // running streams of the interference figure; 0: leave it out
  int64_t long_prompt = 100'000;  // tokens of the prompt that disturbs them
};

// INVALID_ARGUMENT names flag, value and what is allowed.
absl::Status Validate(const BenchOptions& options);

// One measured step. Seconds.
struct BenchFigure {
  enum class Phase { kPrefill, kDecode };
  Phase phase = Phase::kDecode;
  int64_t context = 0;  // tokens that each sequence holds
  int64_t batch = 1;    // sequences
  int64_t rows = 1;     // tokens computed by one step, all sequences together
  int64_t runs = 0;
  double median = 0, min = 0, mean = 0;  // of a step; the mean holds the folds too
  double bytes = 0, flops = 0;           // that a step needs at least
  double bandwidth = 0;                  // measured for that many bytes, bytes per second
  double floor = 0;                      // the longer of bytes / bandwidth and flops / FMA rate
  double share() const { return median > 0 ? floor / median : 0; }
  double tokens_per_s() const { return mean > 0 ? static_cast<double>(rows) / mean : 0; }
};
const char* PhaseName(BenchFigure::Phase phase);  // "prefill", "decode"

struct MemoryFigure {
  int64_t context = 0;
  int64_t slot_bytes = 0;      // of one sequence
  int64_t resident_bytes = 0;  // the process, all slots allocated
  int64_t kv_bytes = 0;        // what a bf16 key/value cache would hold
};

struct InterferenceFigure {
  int64_t streams = 0, prompt_tokens = 0, gaps = 0;
  double full_step = 0;  // median step of the prompt alone, with a full budget, past the switch-over
  double gap_p50 = 0, gap_p99 = 0, gap_max = 0;  // between tokens of one stream meanwhile
  double ratio() const { return full_step > 0 ? gap_p99 / full_step : 0; }
};

struct BenchReport {
  std::string model, dtype;
  int threads = 0;
  int64_t parameters = 0, weight_bytes = 0, step_weight_bytes = 0;
  double fma_rate = 0;               // FLOP/s
  double memory_bandwidth = 0;       // bytes/s over a buffer larger than any cache
  int64_t switch_over = 0;           // tokens; -1: never
  std::vector<BenchFigure> figures;  // in the order measured
  std::vector<MemoryFigure> memory;
  std::optional<InterferenceFigure> interference;
  std::vector<std::string> skipped;  // what was left out, and why
};

// Hears of each figure as it is measured, and of progress between them. Any may be empty.
struct BenchObserver {
  std::function<void(const BenchReport&)> on_start;  // machine and model are filled in
  std::function<void(const BenchFigure&)> on_figure;
  std::function<void(const char* what, int64_t done, int64_t total)> on_progress;
};

// Checks the model's result first. `model` runs on `pool`.
absl::StatusOr<BenchReport> RunBench(Model* model, kernels::ThreadPool* pool, const BenchOptions& options,
                                     const BenchObserver& observer);

// The part of it that runs an engine.
absl::StatusOr<InterferenceFigure> MeasureInterference(Model* model, const BenchOptions& options,
                                                       const BenchObserver& observer);

// Of a clock that only goes forward.
double SteadySeconds();
// Middle of `values` (the lower of two); 0 for none.
double Median(std::vector<double> values);

// A table: its heading, a line of it, and what follows it.
std::string BenchHeading(const BenchReport& report);
std::string BenchLine(const BenchFigure& figure);
std::string BenchSummary(const BenchReport& report);
// Every figure with its floor and its share, and what measured it when: build, machine, date.
std::string BenchJson(const BenchReport& report, const BenchOptions& options);
// Time per token and memory against context, as SVG.
std::string BenchPlot(const BenchReport& report);

}  // namespace statehouse
