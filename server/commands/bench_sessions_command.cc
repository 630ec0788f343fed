#include "server/commands/bench_sessions_command.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "clients/flags/number_flags.h"
#include "engine/state/folder_blobs.h"
#include "server/commands/bench_sessions.h"
#include "server/commands/command_error.h"
#include "server/commands/model_flags.h"
#include "server/commands/report.h"
#include "server/commands/run_folders.h"

namespace statehouse {
namespace {

namespace fs = std::filesystem;

struct SessionsBenchFlags {
  ModelFlags model;
  SessionsBenchOptions options;
  bool quick = false;
  std::string disk_folder, store_folder, json_file, plot_file;
};

absl::Status Run(SessionsBenchFlags& flags, const ShowProgress& show_progress) {
  if (flags.model.model.empty()) {
    return absl::InvalidArgumentError("statehouse bench sessions needs a checkpoint: add --model DIR");
  }
  if (flags.quick) {
    std::erase_if(flags.options.contexts, [](int64_t context) { return context > 16384; });
    flags.options.requests = std::min<int64_t>(flags.options.requests, 30);
    flags.options.max_seconds = std::min(flags.options.max_seconds, 0.2);
  }
  if (absl::Status status = Validate(flags.options); !status.ok()) return status;
  if (absl::Status status = CheckReportFile("--json", flags.json_file); !status.ok()) return status;
  if (absl::Status status = CheckReportFile("--plot", flags.plot_file); !status.ok()) return status;
  RunFolders folders;  // before any thread is started
  const auto disk_folder = folders.Make("--disk", flags.disk_folder);
  if (!disk_folder.ok()) return disk_folder.status();
  auto disk = FolderBlobs::Open(FileLayer::Posix(), *disk_folder, "disk", /*shared=*/false);
  if (!disk.ok()) return disk.status();
  std::string store_folder;
  std::unique_ptr<FolderBlobs> store;
  if (!flags.store_folder.empty()) {
    auto made = folders.Make("--store-folder", flags.store_folder);
    if (!made.ok()) return made.status();
    store_folder = *std::move(made);
    auto opened = FolderBlobs::Open(FileLayer::Posix(), store_folder, "store", /*shared=*/true);
    if (!opened.ok()) return opened.status();
    store = *std::move(opened);
  }
  auto checkpoint =
      ToCheckpointOptions(flags.model, [&](int64_t done, int64_t total) { show_progress("loading", done, total); });
  if (!checkpoint.ok()) return checkpoint.status();
  kernels::ThreadPool pool(flags.model.threads);
  auto model = LoadModel(flags.model.model, checkpoint->load, &pool);
  show_progress(nullptr, 0, 0);
  if (!model.ok()) return model.status();
  auto report = RunSessionsBench(
      model->get(), /*tokenizer_fingerprint=*/0, flags.options,
      {.disk = disk->get(), .store = store.get(), .disk_folder = *disk_folder, .store_folder = store_folder},
      {.on_progress = show_progress});
  show_progress(nullptr, 0, 0);
  if (!report.ok()) return report.status();
  report->model = fs::weakly_canonical(flags.model.model).filename().string();
  std::fputs(SessionsBenchText(*report).c_str(), stdout);
  std::fflush(stdout);
  if (absl::Status status = WriteReport("--json", flags.json_file, SessionsBenchJson(*report, flags.options));
      !status.ok()) {
    return status;
  }
  return WriteReport("--plot", flags.plot_file, SessionsBenchPlot(*report));
}

void AddMeasurementFlags(CLI::App& command, SessionsBenchFlags* flags) {
  constexpr char kGroup[] = "Measurement";
  SessionsBenchOptions& options = flags->options;
  const auto add = [&](const char* name, auto* value, const char* help, const auto& bounds) {
    return AddNumber(command, name, value, help, bounds)->group(kGroup);
  };
  using Count = Bounds<int64_t>;
  constexpr int64_t kMany = 1'000'000'000;
  AddNumbers(command, "--context", &options.contexts, "Tokens that the session holds when it is measured, ascending",
             Count{.least = 1, .most = kMany})
      ->group(kGroup);
  add("--step-tokens", &options.step_tokens, "Prompt tokens of one step", Count{.least = 1, .most = 65536});
  add("--min-runs", &options.min_runs, "Runs of each figure, at least", Count{.least = 1, .most = kMany});
  add("--max-seconds", &options.max_seconds, "Time for each figure, once it has its runs",
      Bounds<double>{.least = 0, .most = kMany})
      ->type_name("SECONDS");
  add("--requests", &options.requests, "Requests of each workload; 0: leave the workloads out",
      Count{.least = 0, .most = kMany});
  add("--cache-states", &options.cache_states, "Memory of the prefix cache, in sequences",
      Count{.least = 3, .most = 1'000'000});
  command
      .add_flag("--made-up-states", options.made_up_states,
                "Fill states with numbers instead of computing them: moves only, but at any context in seconds")
      ->group(kGroup);
  command.add_flag("--quick", flags->quick, "Contexts up to 16 k, 30 requests")->group(kGroup);
  command
      .add_option("--disk", flags->disk_folder,
                  "Folder on the disk to measure; a folder of this run's own is made in it. By default the temporary "
                  "one, which may be memory")
      ->group(kGroup)
      ->type_name("DIR");
  command.add_option("--store-folder", flags->store_folder, "Measure a folder that servers share, too")
      ->group(kGroup)
      ->type_name("DIR");
}

}  // namespace

void AddSessionsBenchCommand(CLI::App& bench, ShowProgress show_progress, CommandActions* actions) {
  CLI::App* const command = bench.add_subcommand(
      "sessions", "Measure what it costs to save, restore, fork and export a sequence, and what shared prefixes save.");
  auto flags = std::make_shared<SessionsBenchFlags>();
  AddModelFlags(*command, &flags->model);
  AddMeasurementFlags(*command, flags.get());
  command->add_option("--json,--bench-json", flags->json_file, "Write every figure beside its tier's rate to this file")
      ->group("Output")
      ->type_name("FILE");
  command->add_option("--plot", flags->plot_file, "Draw moves and first tokens against context (SVG)")
      ->group("Output")
      ->type_name("FILE");
  command->footer(
      "Examples:\n"
      "  statehouse bench sessions --model models/demo/checkpoint --quick\n"
      "  statehouse bench sessions --model DIR --disk /var/lib/statehouse --json sessions.json --plot sessions.svg\n");
  (*actions)[command] = [flags, show_progress = std::move(show_progress)] {
    const absl::Status status = Run(*flags, show_progress);
    return status.ok() ? 0 : FailCommand(status);
  };
}

}  // namespace statehouse
