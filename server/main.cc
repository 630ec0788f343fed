// The composition root: the one place that sees both the commands that speak the wire (clients/cli) and those that run
// an engine in this process (server/commands), and joins them into one program.
#include <CLI/CLI.hpp>
#include <csignal>
#include <string>

#include "absl/strings/str_format.h"
#include "clients/cli/client_commands.h"
#include "clients/cli/command_tree.h"
#include "statehouse/build_info.h"

namespace {

std::string VersionText() {
  const statehouse::BuildInfo& build = statehouse::GetBuildInfo();
  return absl::StrFormat("statehouse %s (%s, %s, %s)", build.version, build.commit, build.build_type, build.compiler);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a reader that went away is an error of a write, not the end of the program
  CLI::App root(
      "Statehouse: an inference server for power-retention language models, whose memory per sequence never grows.",
      "statehouse");
  root.set_help_flag("--help,-h", "Print this and leave");
  statehouse::cli::Actions actions;
  statehouse::cli::AddClientCommands(root, {}, &actions);
  statehouse::cli::FinishTree(root, VersionText(), &actions);
  return statehouse::cli::RunCommandLine(root, actions, argc, argv);
}
