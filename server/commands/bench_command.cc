#include "server/commands/bench_command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/flags/number_flags.h"
#include "server/commands/bench.h"
#include "server/commands/command_error.h"
#include "server/commands/model_flags.h"
#include "server/commands/report.h"

namespace statehouse {
namespace {

struct BenchFlags {
  ModelFlags model;
  BenchOptions options;
  bool quick = false;
  std::string json_file, plot_file;
};

// Small enough for a minute on the demo checkpoint.
void MakeQuick(BenchOptions* options) {
  std::erase_if(options->contexts, [](int64_t context) { return context > 16384; });
  if (options->contexts.empty()) options->contexts = {4096};
  options->max_seconds = std::min(options->max_seconds, 1.0);
  options->long_prompt = std::min<int64_t>(options->long_prompt, 16384);
}

void Print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

absl::Status Run(BenchFlags& flags, const ShowProgress& show_progress) {
  if (flags.model.model.empty()) {
    return absl::InvalidArgumentError(
        "statehouse bench needs a checkpoint: add --model DIR. A running server is measured by: statehouse bench load");
  }
  if (flags.quick) MakeQuick(&flags.options);
  if (absl::Status status = Validate(flags.options); !status.ok()) return status;
  if (absl::Status status = CheckReportFile("--json", flags.json_file); !status.ok()) return status;
  if (absl::Status status = CheckReportFile("--plot", flags.plot_file); !status.ok()) return status;
  absl::StatusOr<CheckpointOptions> checkpoint =
      ToCheckpointOptions(flags.model, [&](int64_t done, int64_t total) { show_progress("loading", done, total); });
  if (!checkpoint.ok()) return checkpoint.status();
  std::string device;
  checkpoint->load.on_device = [&device](const std::string& why) { device = why; };
  kernels::ThreadPool pool(flags.model.threads);
  absl::StatusOr<std::unique_ptr<Model>> model = LoadModel(flags.model.model, checkpoint->load, &pool);
  show_progress(nullptr, 0, 0);
  if (!model.ok()) return model.status();
  Print(absl::StrCat(device, "\n"));
  const std::string name = std::filesystem::weakly_canonical(flags.model.model).filename().string();
  BenchObserver observer;
  observer.on_start = [&](BenchReport report) {
    report.model = name;
    show_progress(nullptr, 0, 0);
    Print(BenchHeading(report));
  };
  observer.on_figure = [&](const BenchFigure& figure) {
    show_progress(nullptr, 0, 0);
    Print(BenchLine(figure));
  };
  observer.on_progress = show_progress;
  absl::StatusOr<BenchReport> report = RunBench(model->get(), &pool, flags.options, observer);
  show_progress(nullptr, 0, 0);
  if (!report.ok()) return report.status();
  report->model = name;
  Print(BenchSummary(*report));
  if (absl::Status status = WriteReport("--json", flags.json_file, BenchJson(*report, flags.options)); !status.ok())
    return status;
  return WriteReport("--plot", flags.plot_file, BenchPlot(*report));
}

}  // namespace

CLI::App* AddBenchCommand(CLI::App& root, ShowProgress show_progress, CommandActions* actions) {
  CLI::App* command = root.add_subcommand(
      "bench",
      "Measure a model on this machine: prefill, decode, memory, each beside what the machine could do at best.");
  auto flags = std::make_shared<BenchFlags>();
  AddModelFlags(*command, &flags->model);
  command->get_option("--model")->required(false);  // `bench load` measures a server instead
  BenchOptions& options = flags->options;
  constexpr char kGroup[] = "Measurement";
  const auto add = [&](const char* name, auto* value, const char* help, const auto& bounds) {
    return AddNumber(*command, name, value, help, bounds)->group(kGroup);
  };
  const auto add_list = [&](const char* name, std::vector<int64_t>* values, const char* help, const auto& bounds) {
    AddNumbers(*command, name, values, help, bounds)->group(kGroup);
  };
  using Count = Bounds<int64_t>;
  add_list("--context", &options.contexts, "Tokens that a sequence holds when it is measured, ascending",
           Count{.least = 1});
  add_list("--batch", &options.batches, "Sequences that decode together; all but one are copies",
           Count{.least = 1, .most = 4096});
  add("--step-tokens", &options.step_tokens, "Prompt tokens of one step", Count{.least = 1, .most = 65536});
  add("--min-runs", &options.min_runs, "Runs of each figure, at least", Count{.least = 1});
  add("--max-seconds", &options.max_seconds, "Time for each figure, once it has its runs", Bounds<double>{.least = 0})
      ->type_name("SECONDS");
  add("--streams", &options.streams,
      "Streams that run while a long prompt is prefilled, to measure their gaps; 0: leave it out",
      Count{.least = 0, .most = 1024});
  add("--long-prompt", &options.long_prompt, "Tokens of that prompt", Count{.least = 1});
  command
      ->add_flag("--quick", flags->quick,
                 "Contexts up to 16 k and a second per figure: about a minute for a small model")
      ->group(kGroup);
  command
      ->add_option("--json,--bench-json", flags->json_file, "Write every figure, its floor and its share to this file")
      ->group("Output")
      ->type_name("FILE");
  command->add_option("--plot", flags->plot_file, "Draw time per token and memory against context (SVG)")
      ->group("Output")
      ->type_name("FILE");
  command->footer(
      "Examples:\n"
      "  statehouse bench --model models/demo/checkpoint --quick\n"
      "  statehouse bench --model DIR --context 4096,131072,1048576 --batch 1 --json bench.json --plot bench.svg\n"
      "  statehouse bench --model DIR --load-format dummy --dtype int8     # weights from config.json alone\n"
      "  statehouse bench load --max-concurrency 32                        # a running server");
  (*actions)[command] = [flags, show_progress = std::move(show_progress)] {
    const absl::Status status = Run(*flags, show_progress);
    return status.ok() ? 0 : FailCommand(status);
  };
  return command;
}

}  // namespace statehouse
