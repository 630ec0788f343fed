#include "server/commands/bench.h"

#include <algorithm>
#include <bit>
#include <map>
#include <numeric>
#include <optional>

#include "absl/strings/str_format.h"
#include "engine/state/host_memory.h"
#include "kernels/probe/bandwidth.h"
#include "kernels/probe/fma_peak.h"
#include "models/sizing.h"
#include "server/commands/bench_sequences.h"
#ifdef STATEHOUSE_CUDA
#include "kernels/probe/cuda/gpu_ceilings.h"
#endif

namespace statehouse {
namespace {

constexpr int64_t kBeyondCaches = 512 << 20;

// What the device that the model computes on could do at best. The CPU: read bandwidth for as many bytes as a step
// reads, measured once per power of two. A GPU: a large copy, and a large product in bf16.
class Ceilings {
 public:
  Ceilings(const Model& model, kernels::ThreadPool* pool)
      : pool_(*pool), is_gpu_(model.device() != "cpu"), fma_rate_(is_gpu_ ? 0 : kernels::MeasureFmaPeak(*pool)) {}

  // Measures a GPU.
  absl::Status Prepare() {
#ifdef STATEHOUSE_CUDA
    if (!is_gpu_) return absl::OkStatus();
    const absl::StatusOr<kernels::GpuCeilings> measured = kernels::MeasureGpuCeilings();
    if (!measured.ok()) return measured.status();
    fma_rate_ = measured->bf16_flops_per_s;
    gpu_bandwidth_ = measured->copy_bytes_per_s;
#endif
    return absl::OkStatus();
  }

  bool is_gpu() const { return is_gpu_; }
  double fma_rate() const { return fma_rate_; }
  double BandwidthFor(double bytes) {
    if (is_gpu_) return gpu_bandwidth_;
    const auto whole = static_cast<uint64_t>(std::clamp(bytes, 64.0 * 1024, static_cast<double>(kBeyondCaches)));
    double& bandwidth = by_size_[std::bit_ceil(whole)];
    if (bandwidth == 0) bandwidth = kernels::MeasureReadBandwidth(static_cast<int64_t>(std::bit_ceil(whole)), pool_);
    return bandwidth;
  }
  // One pass over memory beyond all caches: bytes per second.
  double PassBeyondCaches() {
    if (!probe_) probe_.emplace(kBeyondCaches, pool_);
    return probe_->Pass();
  }

 private:
  kernels::ThreadPool& pool_;
  const bool is_gpu_;
  std::optional<kernels::BandwidthProbe> probe_;
  double fma_rate_;
  double gpu_bandwidth_ = 0;
  std::map<uint64_t, double> by_size_;
};

class BenchRun {
 public:
  BenchRun(Model* model, kernels::ThreadPool* pool, const BenchOptions& options, const BenchObserver& observer)
      : model_(*model),
        options_(options),
        observer_(observer),
        ceilings_(*model, pool),
        sequences_(model, options.step_tokens) {
    report_.threads = pool->num_threads();
  }

  absl::StatusOr<BenchReport> Run() {
    if (absl::Status status = ceilings_.Prepare(); !status.ok()) return status;
    Describe();
    const absl::StatusOr<int64_t> max_batch = LargestBatchThatFits();
    if (!max_batch.ok()) return max_batch.status();
    if (absl::Status status = sequences_.Allocate(*max_batch); !status.ok()) return status;
    if (absl::Status status = sequences_.CheckResult(); !status.ok()) return status;
    if (observer_.on_start) observer_.on_start(report_);
    for (int64_t context : options_.contexts) {
      if (!model_.retention().has_state() &&
          context + model_.retention().shape().chunk > model_.retention().shape().max_tail_tokens) {
        report_.skipped.push_back(
            absl::StrFormat("context %d: this model has no state form, and --max-tail-tokens is %d", context,
                            model_.retention().shape().max_tail_tokens));
        continue;
      }
      if (absl::Status status = MeasureContext(context, *max_batch); !status.ok()) return status;
    }
    return std::move(report_);
  }

 private:
  void Describe() {
    report_.dtype = kernels::WeightTypeName(model_.weight_type());
    report_.parameters = model_.num_parameters();
    report_.weight_bytes = model_.weight_bytes();
    report_.step_weight_bytes = model_.step_weight_bytes();
    report_.switch_over = model_.retention().has_state() ? model_.retention().shape().switch_over : -1;
    report_.fma_rate = ceilings_.fma_rate();
    report_.memory_bandwidth = ceilings_.BandwidthFor(static_cast<double>(kBeyondCaches));
  }

  absl::StatusOr<int64_t> LargestBatchThatFits() {
    const int64_t slot_bytes = model_.slot_floats() * static_cast<int64_t>(sizeof(float));
    const int64_t most_rows =
        std::max(options_.step_tokens, *std::max_element(options_.batches.begin(), options_.batches.end()));
    const absl::StatusOr<std::optional<int64_t>> on_device = model_.BytesForSlots(most_rows, most_rows);
    if (!on_device.ok()) return on_device.status();
    const int64_t bytes = on_device->value_or(AvailableHostBytes().value_or(INT64_MAX) / 10 * 9);
    const int64_t room = std::max<int64_t>(0, bytes) / slot_bytes - 1;
    int64_t largest = 1;
    for (int64_t batch : options_.batches) {
      if (batch <= room) {
        largest = std::max(largest, batch);
      } else {
        report_.skipped.push_back(
            absl::StrFormat("batch %d: its states need %d bytes, more than is free", batch, batch * slot_bytes));
      }
    }
    return largest;
  }

  absl::Status MeasureContext(int64_t context, int64_t max_batch) {
    std::vector<BenchSequences::PrefillStep> steps;
    const int64_t start = sequences_.position();
    const auto on_progress = [&](int64_t position) {
      if (observer_.on_progress) observer_.on_progress("prefill", position - start, context - start);
    };
    if (absl::Status status = sequences_.PrefillTo(context, on_progress, &steps); !status.ok()) return status;
    AddPrefill(context, steps);
    report_.memory.push_back({.context = context,
                              .slot_bytes = model_.slot_floats() * static_cast<int64_t>(sizeof(float)),
                              .resident_bytes = ResidentBytes(),
                              .kv_bytes = KvCacheBytesPerToken(model_.config()) * context});
    for (int64_t batch : options_.batches) {
      if (batch > max_batch) continue;
      if (observer_.on_progress) observer_.on_progress("decode", 0, 0);
      if (absl::Status status = MeasureDecode(context, batch); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // The full steps nearest to the context stand for it, as many as min_runs asks for and up to 64.
  void AddPrefill(int64_t context, const std::vector<BenchSequences::PrefillStep>& steps) {
    const int64_t most = std::max<int64_t>(options_.min_runs, 64);
    std::vector<double> seconds;
    BenchFigure figure = {.phase = BenchFigure::Phase::kPrefill, .context = context, .rows = options_.step_tokens};
    for (auto step = steps.rbegin(); step != steps.rend() && static_cast<int64_t>(seconds.size()) < most; ++step) {
      if (step->rows != options_.step_tokens) continue;
      seconds.push_back(step->seconds);
      figure.flops += StepFlops(step->position, step->rows);
    }
    if (seconds.empty()) return;
    figure.flops /= static_cast<double>(seconds.size());
    figure.bytes = static_cast<double>(model_.step_weight_bytes());
    Finish(seconds, figure);
  }

  // A step that reads more than any cache holds is compared with reading memory between the steps: on a shared host the
  // ceiling of a minute ago is another one.
  absl::Status MeasureDecode(int64_t context, int64_t batch) {
    BenchFigure figure = DecodeFigure(context, batch);
    std::vector<double> seconds, passes;
    std::function<void()> between;
    if (!ceilings_.is_gpu() && figure.bytes >= static_cast<double>(kBeyondCaches)) {
      between = [&] { passes.push_back(ceilings_.PassBeyondCaches()); };
      between();  // makes its buffer
      passes.clear();
    }
    absl::Status status = sequences_.Decode(batch, options_.min_runs, options_.max_seconds, between, &seconds);
    if (!status.ok()) return status;
    if (!passes.empty()) figure.bandwidth = Median(passes);
    Finish(seconds, figure);
    return absl::OkStatus();
  }

  BenchFigure DecodeFigure(int64_t context, int64_t batch) const {
    BenchFigure figure = {.phase = BenchFigure::Phase::kDecode, .context = context, .batch = batch, .rows = batch};
    const ModelConfig& config = model_.config();
    const auto sequences = static_cast<double>(batch);
    if (model_.retention().InStateForm(context)) {
      figure.bytes = static_cast<double>(DecodeFloorBytes(config, model_.step_weight_bytes(), batch, StateType::kF32));
    } else {  // every row so far: k, v and a gate sum, float32
      const int64_t row_bytes = config.num_layers * config.heads_kv * (2 * config.head_dim + 1) * 4;
      figure.bytes =
          static_cast<double>(model_.step_weight_bytes()) + sequences * static_cast<double>(row_bytes * context);
    }
    figure.flops = sequences * (StepFlops(context, 1) + HeadFlopsPerRow(config));
    return figure;
  }

  // Arithmetic of `rows` prompt rows from `position` on, one sequence, without logits.
  double StepFlops(int64_t position, int64_t rows) const {
    const ModelConfig& config = model_.config();
    const auto count = static_cast<double>(rows);
    if (model_.retention().InStateForm(position))
      return count * (LinearFlopsPerToken(config) + RetentionFlopsPerToken(config));
    const double mean_length = static_cast<double>(position) + count / 2;  // rows that each row looks at
    return count * (LinearFlopsPerToken(config) +
                    static_cast<double>(config.num_layers) * 4 * config.head_dim * config.heads_q * mean_length);
  }

  void Finish(const std::vector<double>& seconds, BenchFigure& figure) {
    figure.runs = static_cast<int64_t>(seconds.size());
    figure.median = Median(seconds);
    figure.min = *std::min_element(seconds.begin(), seconds.end());
    figure.mean = std::accumulate(seconds.begin(), seconds.end(), 0.0) / static_cast<double>(seconds.size());
    if (figure.bandwidth == 0) figure.bandwidth = ceilings_.BandwidthFor(figure.bytes);
    figure.floor = std::max(figure.bytes / figure.bandwidth, figure.flops / ceilings_.fma_rate());
    report_.figures.push_back(figure);
    if (observer_.on_figure) observer_.on_figure(figure);
  }

  Model& model_;
  const BenchOptions& options_;
  const BenchObserver& observer_;
  Ceilings ceilings_;
  BenchSequences sequences_;
  BenchReport report_;
};

}  // namespace

const char* PhaseName(BenchFigure::Phase phase) { return phase == BenchFigure::Phase::kPrefill ? "prefill" : "decode"; }

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<int64_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

absl::Status Validate(const BenchOptions& options) {
  const auto refuse = [](const char* flag, int64_t value, const char* expected) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: %d is not allowed; expected %s", flag, value, expected));
  };
  for (size_t i = 0; i < options.contexts.size(); ++i) {
    if (options.contexts[i] < 1 || (i > 0 && options.contexts[i] <= options.contexts[i - 1])) {
      return refuse("--context", options.contexts[i], "lengths of at least 1 token, each larger than the one before");
    }
  }
  for (int64_t batch : options.batches) {
    if (batch < 1 || batch > 4096) return refuse("--batch", batch, "1 … 4096 sequences");
  }
  if (options.contexts.empty() || options.batches.empty())
    return refuse("--context and --batch", 0, "at least one of each");
  if (options.step_tokens < 1 || options.step_tokens > 65536)
    return refuse("--step-tokens", options.step_tokens, "1 … 65536");
  if (options.min_runs < 1) return refuse("--min-runs", options.min_runs, "at least 1");
  if (options.streams < 0 || options.streams > 1024) return refuse("--streams", options.streams, "0 … 1024");
  if (options.long_prompt < 1) return refuse("--long-prompt", options.long_prompt, "at least 1 token");
  return absl::OkStatus();
}

absl::StatusOr<BenchReport> RunBench(Model* model, kernels::ThreadPool* pool, const BenchOptions& options,
                                     const BenchObserver& observer) {
  if (absl::Status status = Validate(options); !status.ok()) return status;
  absl::StatusOr<BenchReport> report = BenchRun(model, pool, options, observer).Run();
  if (!report.ok() || options.streams == 0) return report;
  absl::StatusOr<InterferenceFigure> interference = MeasureInterference(model, options, observer);
  if (!interference.ok()) return interference.status();
  report->interference = *interference;
  return report;
}

}  // namespace statehouse
