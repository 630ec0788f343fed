#include "server/commands/bench_kernels_command.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_join.h"
#include "clients/flags/choices.h"
#include "clients/flags/number_flags.h"
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

constexpr char kCases[] = "Cases";

void AddSizes(CLI::App& command, const char* name, std::vector<int64_t>* values, const char* help, int64_t least = 1) {
  AddNumbers(command, name, values, help, {.least = least})->group(kCases);
}

void AddTypes(CLI::App& command, const char* name, std::vector<std::string>* types, const char* help,
              const std::vector<std::string>& choices) {
  command.add_option(name, *types, help)
      ->check(OneOf(choices))
      ->group(kCases)
      ->delimiter(',')
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("TYPE,TYPE,…")
      ->default_str(absl::StrJoin(*types, ","));
}

void AddCaseFlags(CLI::App& command, KernelsBenchOptions* options) {
  command.add_option("pass", options->pass, "What to measure")
      ->required()
      ->check(OneOf({"fwd", "bwd", "fwd+bwd", "decode"}));
  AddSizes(command, "--batch", &options->batches, "Sequences");
  AddSizes(command, "--length", &options->lengths, "Rows of each sequence; for decode, tokens that it holds");
  AddSizes(command, "--heads", &options->heads, "Query heads");
  AddSizes(command, "--kv-heads", &options->kv_heads,
           "Key/value heads; one number, or one for each of --heads. By default as many as query heads");
  AddSizes(command, "--head-dim", &options->head_dims, "Head size");
  AddSizes(command, "--chunk", &options->chunks, "Rows of a chunk; 0: the device's own choice", /*least=*/0);
  AddTypes(command, "--kernel-dtype", &options->dtypes, "Of the rows; auto: bf16 on a GPU, float32 on the CPU",
           {"auto", "bf16", "fp16", "float32"});
  AddTypes(command, "--kernel-state-dtype", &options->state_dtypes, "Of the state that decode reads",
           {"float32", "bf16", "int8"});
}

}  // namespace

void AddKernelsBenchCommand(CLI::App& bench, ShowProgress show_progress, CommandActions* actions) {
  CLI::App* const command = bench.add_subcommand(
      "kernels", "Measure the power-retention operators alone, beside what the device could do at best.");
  auto flags = std::make_shared<KernelsBenchFlags>();
  KernelsBenchOptions& options = flags->options;
  AddCaseFlags(*command, &options);
  constexpr char kGroup[] = "Measurement";
  command->add_option("--device", options.device, "auto (a GPU if there is one), cpu or cuda")
      ->group(kGroup)
      ->type_name("DEVICE")
      ->capture_default_str();
  AddNumber(*command, "--threads", &options.threads, "Threads on the CPU; 0: one per available core",
            {.least = 0, .most = 1024})  // as every other --threads: one variable, one meaning
      ->group(kGroup);
  AddNumber(*command, "--graph-layers", &options.layers,
            "Decode on a GPU: calls in one CUDA graph, each on states of its own", {.least = 1, .most = 1024})
      ->group(kGroup);
  AddNumber(*command, "--runs", &options.runs, "Runs of each case, after its result was checked", {.least = 1})
      ->group(kGroup);
  AddNumber(*command, "--max-seconds", &options.max_seconds, "Time for each case on the CPU, once it has 3 runs",
            {.least = 0})
      ->group(kGroup)
      ->type_name("SECONDS");
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
