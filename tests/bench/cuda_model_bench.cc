// Bare steps of a model with dummy weights on a GPU, from config.json alone: prefill by steps, then decode by batch,
// beside the floors of this run. Needs nothing of the server's, so that it can be carried to a GPU machine; users run
// statehouse bench --device cuda.
//
//   cuda_model_bench DIR [--deterministic] [--layers N] [--step ROWS] [--context N,N] [--batch N,N] [--runs N]
//                        [--json FILE] [--profile]
// --profile marks the decode steps after the warm-up for a profiler.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/parallel/thread_pool.h"
#include "kernels/probe/cuda/gpu_ceilings.h"
#include "models/config.h"
#include "models/model.h"
#include "models/sizing.h"
#include "statehouse/build_info.h"
#include "tests/bench/bench_flags.h"

// Of the CUDA runtime; their header is not in every toolkit.
extern "C" int cudaProfilerStart();
extern "C" int cudaProfilerStop();

namespace statehouse {
namespace {

struct Flags {
  std::string dir, json;
  bool deterministic = false;
  bool profile = false;
  int64_t layers = 0;  // 0: the config's
  int64_t step = 2048;
  std::vector<int64_t> contexts = {2048, 16384};
  std::vector<int64_t> batches = {1, 64};
  int64_t runs = 135;  // more than a chunk, so that the mean holds a fold
};

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

Flags ParseFlags(int argc, char** argv) {
  Flags flags;
  BenchFlags parser(
      "cuda_model_bench DIR [--deterministic] [--layers N] [--step ROWS] [--context N,N] [--batch N,N] [--runs N] "
      "[--json FILE] [--profile]");
  parser.Add("--deterministic", &flags.deterministic);
  parser.Add("--layers", &flags.layers);
  parser.Add("--step", &flags.step);
  parser.Add("--context", &flags.contexts);
  parser.Add("--batch", &flags.batches);
  parser.Add("--runs", &flags.runs);
  parser.Add("--json", &flags.json);
  parser.Add("--profile", &flags.profile);
  if (argc < 2) parser.Fail("the first argument is a folder with a config.json");
  flags.dir = argv[1];
  parser.Parse(argc, argv, 2);
  return flags;
}

class Bench {
 public:
  Bench(Model* model, const Flags& flags)
      : model_(*model),
        flags_(flags),
        most_(*std::max_element(flags.batches.begin(), flags.batches.end())),
        switch_over_(model->retention().shape().switch_over) {}
  ~Bench() { model_.RegisterLogits({}); }

  void Run() {
    const auto ceilings = kernels::MeasureGpuCeilings();
    Check(ceilings.status());
    ceilings_ = *ceilings;
    std::printf("%s, %s, commit %s: weights %.2f GB, %.1f MB per sequence; copy %.2f TB/s, cuBLAS bf16 %.0f TFLOP/s\n",
                model_.device_name().c_str(), model_.arithmetic().c_str(), GetBuildInfo().commit,
                model_.weight_bytes() * 1e-9, model_.slot_floats() * 4e-6, ceilings_.copy_bytes_per_s * 1e-12,
                ceilings_.bf16_flops_per_s * 1e-12);
    const int64_t most_rows = std::max(flags_.step, most_);
    logits_.resize(most_ * model_.config().vocab_size);
    tokens_.resize(most_rows);
    model_.RegisterLogits(logits_);
    Check(model_.Reserve(most_rows, most_));
    auto slots = model_.AllocateSlots((model_.slot_floats() * 4 + 127) / 128 * 128, most_ + 1);
    Check(slots.status());
    slots_ = *std::move(slots);
    for (int64_t context : flags_.contexts) {
      while (position_ < context) PrefillStep(context);
      for (int64_t batch : flags_.batches) Decode(batch);
    }
    if (!flags_.json.empty()) WriteJson();
  }

 private:
  void WriteJson() const {
    std::ofstream json(flags_.json);
    json << absl::StreamFormat(
        "{\"device\": \"%s\", \"arithmetic\": \"%s\", \"commit\": \"%s\", \"copy_gb_s\": %.1f, \"matrix_tflop_s\": "
        "%.1f, "
        "\"steps\": [",
        model_.device_name(), model_.arithmetic(), GetBuildInfo().commit, ceilings_.copy_bytes_per_s * 1e-9,
        ceilings_.bf16_flops_per_s * 1e-12);
    for (size_t i = 0; i < measured_.size(); ++i) json << (i == 0 ? "\n  " : ",\n  ") << measured_[i];
    json << "\n]}\n";
    if (!json.flush()) Check(absl::UnavailableError("cannot write " + flags_.json));
  }
  int32_t TokenAt(int64_t position) const { return static_cast<int32_t>(position * 7919 % model_.config().vocab_size); }
  void SwitchOver(int64_t position, float* memory) {
    if (position != switch_over_ || position == 0) return;
    for (int64_t unit = 0; unit < model_.num_switch_units(); ++unit) model_.SwitchOver(memory, unit);
  }
  // Seconds of one step.
  double Step(int64_t rows, const std::vector<StepSequence>& sequences, const std::vector<int32_t>& logit_rows) {
    const std::span<float> logits(logits_.data(), logit_rows.size() * model_.config().vocab_size);
    const double start = Now();
    Check(model_.Forward({{tokens_.data(), static_cast<size_t>(rows)}, sequences, logit_rows}, logits));
    const double seconds = Now() - start;
    if (!std::isfinite(logits[0])) Check(absl::InternalError("a logit is not finite"));
    return seconds;
  }

  void PrefillStep(int64_t context) {
    SwitchOver(position_, slots_->slot(0));
    int64_t rows = std::min(flags_.step, context - position_);
    if (position_ < switch_over_) rows = std::min(rows, switch_over_ - position_);
    for (int64_t i = 0; i < rows; ++i) tokens_[i] = TokenAt(position_ + i);
    const double seconds =
        Step(rows, {{slots_->slot(0), position_, 0, static_cast<int32_t>(rows)}}, {static_cast<int32_t>(rows - 1)});
    position_ += rows;
    const double flops = LinearFlopsPerToken(model_.config()) + RetentionFlopsPerToken(model_.config());
    std::printf("prefill to %7ld: %8.2f ms, %7.0f tok/s, %3.0f %% of the matrix rate in state form\n",
                static_cast<long>(position_), seconds * 1e3, static_cast<double>(rows) / seconds,
                static_cast<double>(rows) * flops / seconds / ceilings_.bf16_flops_per_s * 100);
    measured_.push_back(absl::StrFormat("{\"step\": \"prefill\", \"position\": %d, \"rows\": %d, \"ms\": %.4f}",
                                        position_, rows, seconds * 1e3));
  }

  void Decode(int64_t batch) {
    std::vector<StepSequence> sequences;
    std::vector<int32_t> logit_rows;
    for (int64_t i = 0; i < batch; ++i) {
      slots_->Copy(slots_->slot(0), slots_->slot(1 + i), model_.slot_floats());
      sequences.push_back({slots_->slot(1 + i), position_, static_cast<int32_t>(i), 1});
      logit_rows.push_back(static_cast<int32_t>(i));
    }
    std::vector<double> seconds;
    double sum = 0;
    constexpr int kWarmUps = 5;
    for (int64_t run = -kWarmUps; run < flags_.runs; ++run) {
      for (int64_t i = 0; i < batch; ++i) tokens_[i] = TokenAt(sequences[i].position + i);
      for (StepSequence& sequence : sequences) SwitchOver(sequence.position, sequence.memory);
      if (run == 0 && flags_.profile) cudaProfilerStart();
      const double step = Step(batch, sequences, logit_rows);
      if (run >= 0) seconds.push_back(step), sum += step;
      for (StepSequence& sequence : sequences) ++sequence.position;
    }
    if (flags_.profile) cudaProfilerStop();
    std::sort(seconds.begin(), seconds.end());
    const ModelConfig& config = model_.config();
    const double rows_bytes = static_cast<double>(config.num_layers * config.heads_kv * (2 * config.head_dim + 1) * 4);
    const double bytes = model_.retention().InStateForm(position_)
                             ? DecodeFloorBytes(config, model_.step_weight_bytes(), batch, StateType::kF32)
                             : model_.step_weight_bytes() + batch * position_ * rows_bytes;
    const double floor = bytes / ceilings_.copy_bytes_per_s, median = seconds[seconds.size() / 2];
    std::printf(
        "decode at %7ld, batch %3ld: median %.3f ms, min %.3f, mean %.3f, max %.3f; %.0f tok/s; %.0f %% of its floor\n",
        static_cast<long>(position_), static_cast<long>(batch), median * 1e3, seconds[0] * 1e3,
        sum / static_cast<double>(flags_.runs) * 1e3, seconds.back() * 1e3,
        static_cast<double>(batch * flags_.runs) / sum, floor / median * 100);
    measured_.push_back(
        absl::StrFormat("{\"step\": \"decode\", \"position\": %d, \"batch\": %d, \"median_ms\": %.4f, \"min_ms\": "
                        "%.4f, \"floor_ms\": %.4f}",
                        position_, batch, median * 1e3, seconds[0] * 1e3, floor * 1e3));
  }

  Model& model_;
  const Flags& flags_;
  const int64_t most_, switch_over_;
  kernels::GpuCeilings ceilings_;
  std::unique_ptr<SlotMemory> slots_;  // the growing sequence's, then the copies'
  std::vector<int32_t> tokens_;
  std::vector<float> logits_;
  int64_t position_ = 0;
  std::vector<std::string> measured_;  // one JSON object per line of the table
};

}  // namespace
}  // namespace statehouse

int main(int argc, char** argv) {
  using namespace statehouse;  // NOLINT: main
  const Flags flags = ParseFlags(argc, argv);
  auto config = ReadConfig(flags.dir);
  Check(config.status());
  if (flags.layers > 0) config->model.num_layers = flags.layers;
  kernels::ThreadPool pool(0);
  LoadOptions options;
  options.dummy = true;
  options.device = "cuda";
  options.deterministic = flags.deterministic;
  auto model = LoadModelWithConfig(flags.dir, config->model, options, &pool);
  Check(model.status());
  Bench(model->get(), flags).Run();
  return 0;
}
