// The flags of `statehouse bench load`.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cli/client_commands.h"
#include "clients/cli/connection_flags.h"
#include "clients/cli/list_flags.h"
#include "clients/cli/load_bench.h"
#include "clients/cli/load_plot.h"
#include "clients/cli/printing.h"
#include "clients/cli/progress.h"
#include "clients/cli/request_flags.h"
#include "clients/flags/number_flags.h"

namespace statehouse::cli {
namespace {

struct LoadFlags {
  LoadOptions options;
  std::vector<std::string> goals;
  std::string model;
  std::string json_file, plot_file;
  DrawPlot draw;
  ReportFiles files;
};

int RunLoadBenchmark(const Connection& connection, LoadFlags& flags) {
  if (absl::Status status = ParseGoals(flags.goals, &flags.options.goals); !status.ok()) return Fail(status);
  for (const absl::Status& status :
       {flags.files.check("--json", flags.json_file), flags.files.check("--plot", flags.plot_file)}) {
    if (!status.ok()) return Fail(status);
  }
  flags.options.request.set_model(flags.model);
  Progress progress(stderr);
  absl::StatusOr<LoadReport> report =
      RunLoad(connection, flags.options, [&](int64_t done, int64_t total) { progress.Show("requests", done, total); });
  progress.Clear();
  if (!report.ok()) return Fail(report.status());
  Print(stdout, LoadReportText(flags.options, *report));
  for (const absl::Status& status :
       {flags.files.write("--json", flags.json_file, LoadReportJson(flags.options, *report)),
        flags.files.write("--plot", flags.plot_file, flags.draw ? flags.draw(LoadPlot(*report)) : "")}) {
    if (!status.ok()) return Fail(status);
  }
  return report->failed == 0 ? 0 : 1;
}

}  // namespace

void AddLoadBenchmark(CLI::App& bench, DrawPlot draw, ReportFiles files, Actions* actions) {
  constexpr char kLoad[] = "Load";
  CLI::App* command = bench.add_subcommand(
      "load", "Send requests to a running server and measure it, with the definitions of `vllm bench serve`.");
  auto flags = std::make_shared<LoadFlags>();
  flags->draw = std::move(draw);
  flags->files = std::move(files);
  LoadOptions& options = flags->options;
  const auto add = [&](const char* name, auto* value, const char* help, const auto& bounds) {
    AddNumber(*command, name, value, help, bounds)->group(kLoad);
  };
  using Count = Bounds<int64_t>;
  using Share = Bounds<double>;
  add("--num-prompts", &options.num_prompts, "Requests to send", Count{.least = 1, .most = 1'000'000});
  add("--request-rate", &options.request_rate, "Requests per second; 0 or inf sends all at once",
      Share{.least = 0, .infinite = true});
  add("--burstiness", &options.burstiness,
      "Shape of the gamma-distributed gaps; 1 is a Poisson process, smaller is burstier",
      Share{.least = 0, .above = true});
  add("--max-concurrency", &options.max_concurrency, "Requests under way at once; 0: no limit", Count{.least = 0});
  add("--input-len", &options.input_len, "Tokens of a prompt, drawn at random", Count{.least = 1, .most = 1 << 30});
  add("--output-len", &options.output_len, "Tokens of an answer; end-of-sequence is ignored",
      Count{.least = 1, .most = 1 << 30});
  add("--range-ratio", &options.range_ratio, "Lengths vary by this share to both sides, 0 or more and below 1",
      Share{});
  add("--num-warmups", &options.num_warmups, "Requests before the clock starts", Count{.least = 0});
  add("--random-seed", &options.random_seed, "Of prompts, lengths and gaps", Bounds<uint64_t>());
  AddTexts(*command, kLoad, "--goodput",
           "Count requests that keep ttft:MS, tpot:MS, e2el:MS; may be given several times", "GOAL",
           [flags](const std::vector<std::string>& goals) { flags->goals = goals; });
  command
      ->add_option("--json,--bench-json", flags->json_file, "Write every figure, its floor and its share to this file")
      ->group(kLoad)
      ->type_name("FILE");
  if (flags->draw) {
    command->add_option("--plot", flags->plot_file, "Draw how many latencies were below what (SVG)")
        ->group(kLoad)
        ->type_name("FILE");
  }
  AddSamplingFlags(*command, &options.request);
  // Both are the load's own: see --output-len.
  for (const char* name : {"--max-tokens", "--ignore-eos"}) command->remove_option(command->get_option(name));
  AddCacheFlags(*command, &options.request);
  AddModelNameFlag(*command, &flags->model);
  AddServerCommand(*command, actions,
                   [flags](const Connection& connection) { return RunLoadBenchmark(connection, *flags); });
  command->footer(
      "Examples:\n"
      "  statehouse bench load --num-prompts 200 --max-concurrency 32\n"
      "  statehouse bench load --request-rate 4 --goodput ttft:500 --goodput tpot:60 --json load.json --plot load.svg");
}

}  // namespace statehouse::cli
