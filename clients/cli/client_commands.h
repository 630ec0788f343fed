// The commands that speak to a server: chat, generate, sessions, status, models, tokenize, detokenize, cancel, health,
// bench load.
//
// Thread-safety: one thread, once per process.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cli/command_tree.h"
#include "clients/cli/generate_backend.h"
#include "clients/cli/load_plot.h"

namespace statehouse::cli {

// What `generate --offline` runs on. The composition root brings it; this folder knows only the wire.
struct OfflineGeneration {
  // --model and the like.
  std::function<void(CLI::App& generate)> add_flags;
  // After parsing: loads the model, with room for that request.
  std::function<absl::StatusOr<std::unique_ptr<GenerateBackend>>(const v1::GenerateRequest& request)> open;
};

// `offline` may hold empty functions: then there is no --offline.
void AddClientCommands(CLI::App& root, const OfflineGeneration& offline, Actions* actions);
// How a report gets into the file that `flag` names; both do nothing if `path` is empty.
struct ReportFiles {
  // Before the measurement: whether `write` will be able to.
  std::function<absl::Status(const char* flag, const std::string& path)> check;
  std::function<absl::Status(const char* flag, const std::string& path, const std::string& contents)> write;
};
// `load`, under the `bench` command that somebody else made. `draw` may be empty: then there is no --plot.
void AddLoadBenchmark(CLI::App& bench, DrawPlot draw, ReportFiles files, Actions* actions);

}  // namespace statehouse::cli
