// The flags of every command that speaks to a server, and how such a command runs and fails. Thread-safety: as CLI11's.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "clients/cli/command_tree.h"
#include "clients/cli/connection.h"

namespace statehouse::cli {

void AddConnectionFlags(CLI::App& command, ConnectionOptions* options);
// --served-model-name
void AddModelNameFlag(CLI::App& command, std::string* name);
// A command that needs a server: adds its connection flags; `run` gets the open connection and returns the exit status.
void AddServerCommand(CLI::App& command, Actions* actions, std::function<int(const Connection&)> run);

// Says what went wrong on standard error; returns 1.
int Fail(const absl::Status& status);
// 0 if it is OK, else Fail().
int ExitStatus(const absl::Status& status);

}  // namespace statehouse::cli
