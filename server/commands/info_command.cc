#include "server/commands/info_command.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "clients/flags/number_flags.h"
#include "server/commands/command_error.h"
#include "server/commands/info.h"
#include "server/commands/model_flags.h"

namespace statehouse {
namespace {

struct InfoFlags {
  std::string directory;
  int64_t memory_bytes = 0;
  int64_t max_tail_tokens = 0;
  bool json = false;
};

int RunInfo(const InfoFlags& flags) {
  const int64_t memory = flags.memory_bytes > 0 ? flags.memory_bytes : MachineMemoryBytes();
  absl::StatusOr<CheckpointInfo> info = DescribeCheckpoint(flags.directory, memory, flags.max_tail_tokens);
  if (!info.ok()) return FailCommand(info.status());
  std::fputs((flags.json ? InfoJson(*info) : InfoText(*info)).c_str(), stdout);
  return 0;
}

}  // namespace

void AddInfoCommand(CLI::App& root, CommandActions* actions) {
  CLI::App* command =
      root.add_subcommand("info", "What a checkpoint is and costs: sizes, state per sequence, break-even, what fits.");
  auto flags = std::make_shared<InfoFlags>();
  command->add_option("DIR", flags->directory, "Checkpoint directory; only its config is read")
      ->required()
      ->type_name("DIR");
  AddBytesFlag(*command, "--memory", &flags->memory_bytes,
               "Memory for weights and sequences, such as 80GB or 64GiB. Default: this machine's")
      ->group("Flags")
      ->default_str("");
  AddNumber(*command, "--max-tail-tokens", &flags->max_tail_tokens,
            "Longest sequence of a shape that has no state form, in tokens", {.least = 0, .most = int64_t{1} << 32})
      ->group("Flags")
      ->type_name("TOKENS")
      ->default_str("");
  command->add_flag("--json", flags->json, "Print one JSON object")->group("Flags");
  command->footer(
      "Examples:\n"
      "  statehouse info models/demo/checkpoint\n"
      "  statehouse info ./PowerCoder-3B --memory 80GB --json");
  (*actions)[command] = [flags] { return RunInfo(*flags); };
}

}  // namespace statehouse
