// The composition root: the one place that sees both the commands that speak the wire (clients/cli) and those that run
// an engine in this process (server/commands), and joins them into one program.
#include <fcntl.h>
#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "clients/cli/client_commands.h"
#include "clients/cli/command_tree.h"
#include "clients/cli/generate_backend.h"
#include "clients/cli/load_plot.h"
#include "clients/cli/progress.h"
#include "server/commands/bench_command.h"
#include "server/commands/bench_kernels_command.h"
#include "server/commands/bench_sessions_command.h"
#include "server/commands/info_command.h"
#include "server/commands/offline.h"
#include "server/commands/report.h"
#include "server/commands/serve.h"
#include "server/commands/svg_plot.h"
#include "statehouse/build_info.h"

namespace statehouse {
namespace {

std::string VersionText() {
  const BuildInfo& build = GetBuildInfo();
  return absl::StrFormat("statehouse %s (%s, %s, %s)", build.version, build.commit, build.build_type, build.compiler);
}

// `generate --offline`: what the client knows as a backend is an engine in this process.
class OfflineBackend : public cli::GenerateBackend {
 public:
  explicit OfflineBackend(std::unique_ptr<OfflineGenerator> generator) : generator_(std::move(generator)) {}
  absl::Status Generate(const v1::GenerateRequest& request, const OnEvent& on_event) override {
    return generator_->Generate(request, on_event);
  }
  void Cancel() override { generator_->Cancel(); }
  void ForgetCancel() override { generator_->ForgetCancel(); }

 private:
  const std::unique_ptr<OfflineGenerator> generator_;
};

cli::OfflineGeneration MakeOfflineGeneration() {
  auto flags = std::make_shared<OfflineFlags>();
  cli::OfflineGeneration offline;
  offline.add_flags = [flags](CLI::App& generate) { AddOfflineFlags(generate, flags.get()); };
  offline.open = [flags](const v1::GenerateRequest& request) -> absl::StatusOr<std::unique_ptr<cli::GenerateBackend>> {
    cli::Progress progress(stderr);
    auto generator = OfflineGenerator::Open(
        *flags, request, [&](int64_t done, int64_t total) { progress.Show("loading", done, total); });
    if (!generator.ok()) return generator.status();
    return std::make_unique<OfflineBackend>(*std::move(generator));
  };
  return offline;
}

ShowProgress MakeShowProgress() {
  auto progress = std::make_shared<cli::Progress>(stderr);
  return [progress](const char* what, int64_t done, int64_t total) {
    if (what == nullptr) {
      progress->Clear();
    } else {
      progress->Show(what, done, total);
    }
  };
}

// `bench load` draws as `bench` does.
std::string DrawLoadPlot(const std::vector<cli::PlotArea>& areas) {
  std::vector<PlotPanel> panels;
  for (const cli::PlotArea& area : areas) {
    PlotPanel panel = {.title = area.title, .x_label = area.x_label, .y_label = area.y_label};
    for (const cli::PlotCurve& curve : area.curves) panel.series.push_back({curve.name, curve.points, curve.dashed});
    panels.push_back(std::move(panel));
  }
  return DrawSvg(panels);
}

// A descriptor 0, 1 or 2 that the caller closed would become the next file or socket that somebody opens, and be read
// as standard input, or written a log to. Reads then find the end, and writing to standard output still fails. Runs
// before the initialisation of the libraries' own objects: gRPC's opens descriptors.
__attribute__((constructor(101))) void ReserveStandardStreams() {
  constexpr int kModes[] = {O_RDONLY, O_RDONLY, O_WRONLY};
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    if (open("/dev/null", kModes[fd]) == fd) continue;  // the lowest that is free is this one
    std::perror("statehouse: /dev/null, in place of a standard stream that is closed");
    _exit(1);
  }
}

// Of gRPC's own lines only those that end the program.
void LogOnlyTheLastWords(gpr_log_func_args* line) {
  if (std::strstr(line->message, "assertion failed") == nullptr) return;
  std::fprintf(stderr, "statehouse: %s:%d: %s\n", line->file, line->line, line->message);
}

// Libraries write lines of their own to standard error, about what each command says in its own words.
void SilenceLibraries() {
  if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_function(LogOnlyTheLastWords);  // else gRPC is looked into
  google::protobuf::SetLogHandler(nullptr);
}

int Main(int argc, char** argv) {
  SilenceLibraries();
  std::signal(SIGPIPE, SIG_IGN);  // a reader that went away is an error of a write, not the end of the program
  CLI::App root(
      "Statehouse: an inference server for power-retention language models, whose memory per sequence never grows.",
      "statehouse");
  root.set_help_flag("--help,-h", "Print this and leave");
  cli::Actions actions;
  AddServeCommand(root, &actions);
  cli::AddClientCommands(root, MakeOfflineGeneration(), &actions);
  AddInfoCommand(root, &actions);
  CLI::App* const bench = AddBenchCommand(root, MakeShowProgress(), &actions);
  cli::AddLoadBenchmark(*bench, DrawLoadPlot, {.check = CheckReportFile, .write = WriteReport}, &actions);
  AddSessionsBenchCommand(*bench, MakeShowProgress(), &actions);
  AddKernelsBenchCommand(*bench, MakeShowProgress(), &actions);
  cli::FinishTree(root, VersionText(), &actions);
  return cli::RunCommandLine(root, actions, argc, argv);
}

}  // namespace
}  // namespace statehouse

int main(int argc, char** argv) {
  // Nothing of ours throws; a library may where even its error cannot be had, as when memory is out.
  try {
    return statehouse::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "statehouse: %s\n", error.what());
  } catch (...) {
    std::fputs("statehouse: unknown exception\n", stderr);
  }
  return 1;
}
