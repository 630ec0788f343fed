#include "server/commands/bench_kernels_command.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "server/commands/bench_kernels.h"
#include "server/commands/command_error.h"
#include "server/commands/report.h"

namespace statehouse {
namespace {

struct KernelsBenchFlags {
  KernelsBenchOptions options;
  std::string json_file, csv_file, plot_file;
};

void Print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

absl::Status Run(const KernelsBenchFlags& flags, const ShowProgress& show_progress) {
  for (const auto& [flag, file] : {std::pair{"--json", &flags.json_file}, std::pair{"--csv", &flags.csv_file},
                                   std::pair{"--plot", &flags.plot_file}}) {
    if (absl::Status status = CheckReportFile(flag, *file); !status.ok()) return status;
  }
  const auto clear = [&] { show_progress(nullptr, 0, 0); };
  const absl::StatusOr<KernelsBenchReport> report = RunKernelsBench(
      flags.options,
      {.on_start = [&](const auto& it) { clear(), Print(KernelsBenchHeading(it)); },
       .on_figure = [&](const auto& it, const auto& figure) { clear(), Print(KernelsBenchLine(it, figure)); },
       .on_progress = show_progress});
  clear();
  if (!report.ok()) return report.status();
  Print(KernelsBenchSummary(*report));
  const struct {
    const char* flag;
    const std::string& file;
    std::string contents;
  } outputs[] = {{"--json", flags.json_file, KernelsBenchJson(*report)},
                 {"--csv", flags.csv_file, KernelsBenchCsv(*report)},
                 {"--plot", flags.plot_file, KernelsBenchPlot(*report)}};
  for (const auto& it : outputs) {
    if (absl::Status status = WriteReport(it.flag, it.file, it.contents); !status.ok()) return status;
  }
  if (report->figures.empty()) return absl::UnimplementedError("no case could be measured");
  return absl::OkStatus();
}

template <typename T>
void AddList(CLI::App& command, const char* name, std::vector<T>* values, const char* help, const char* type) {
  CLI::Option* const option = command.add_option(name, *values, help)
                                  ->group("Cases")
                                  ->delimiter(',')
                                  ->expected(1)
                                  ->allow_extra_args(false)
                                  ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
                                  ->type_name(type);
  if (!values->empty()) option->capture_default_str();
}

void AddCaseFlags(CLI::App& command, KernelsBenchOptions* options) {
  constexpr char kNumbers[] = "N,N,…", kTypes[] = "TYPE,TYPE,…";
  command.add_option("pass", options->pass, "fwd, bwd, fwd+bwd or decode")->required()->type_name("PASS");
  AddList(command, "--batch", &options->batches, "Sequences", kNumbers);
  AddList(command, "--length", &options->lengths, "Rows of each sequence; for decode, tokens that it holds", kNumbers);
  AddList(command, "--heads", &options->heads, "Query heads", kNumbers);
  AddList(command, "--kv-heads", &options->kv_heads,
          "Key/value heads; one number, or one for each of --heads. By default as many as query heads", kNumbers);
  AddList(command, "--head-dim", &options->head_dims, "Head size", kNumbers);
  AddList(command, "--chunk", &options->chunks, "Rows of a chunk; 0: the device's own choice", kNumbers);
  AddList(command, "--kernel-dtype", &options->dtypes, "bf16, fp16, float32; auto: bf16 on a GPU, float32 on the CPU",
          kTypes);
  AddList(command, "--kernel-state-dtype", &options->state_dtypes,
          "Of the state that decode reads: float32, bf16, int8", kTypes);
}

}  // namespace

void AddKernelsBenchCommand(CLI::App& bench, ShowProgress show_progress, CommandActions* actions) {
  CLI::App* const command = bench.add_subcommand(
      "kernels", "Measure the power-retention operators alone, beside what the device could do at best.");
  auto flags = std::make_shared<KernelsBenchFlags>();
  KernelsBenchOptions& options = flags->options;
  AddCaseFlags(*command, &options);
  const auto add = [&](const char* name, auto& value, const char* help, const char* type) {
    return command->add_option(name, value, help)->group("Measurement")->type_name(type);
  };
  add("--device", options.device, "auto (a GPU if there is one), cpu or cuda", "DEVICE")->capture_default_str();
  command->add_option("--threads", options.threads, "Threads on the CPU; 0: one per available core")
      ->group("Measurement")
      ->check(CLI::Range(0, 1024))  // as every other --threads: one variable, one meaning
      ->capture_default_str();
  add("--graph-layers", options.layers, "Decode on a GPU: calls in one CUDA graph, each on states of its own", "INT")
      ->capture_default_str();
  add("--runs", options.runs, "Runs of each case, after its result was checked", "INT")->capture_default_str();
  add("--max-seconds", options.max_seconds, "Time for each case on the CPU, once it has 3 runs", "SECONDS")
      ->capture_default_str();
  const auto add_file = [&](const char* name, std::string& value, const char* help) {
    command->add_option(name, value, help)->group("Output")->type_name("FILE");
  };
  add_file("--json,--bench-json", flags->json_file, "Write every figure, its needs and its shares to this file");
  add_file("--csv", flags->csv_file, "Write the table with commas to this file");
  add_file("--plot", flags->plot_file, "Draw throughput and share of the ceiling against context (SVG)");
  command->footer(
      "Examples:\n"
      "  statehouse bench kernels fwd --length 4096,65536 --heads 8 --head-dim 64\n"
      "  statehouse bench kernels fwd+bwd --heads 24 --kv-heads 2 --head-dim 128 --csv kernels.csv\n"
      "  statehouse bench kernels decode --length 4096,65536,1048576 --batch 1,64 --heads 24 --kv-heads 2 "
      "--head-dim 128 --plot decode.svg\n");
  (*actions)[command] = [flags, show_progress = std::move(show_progress)] {
    const absl::Status status = Run(*flags, show_progress);
    return status.ok() ? 0 : FailCommand(status);
  };
}

}  // namespace statehouse
