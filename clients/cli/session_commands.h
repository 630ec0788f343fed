// The flags of `statehouse sessions`. Thread-safety: as CLI11's.
#pragma once

#include "clients/cli/command_tree.h"

namespace statehouse::cli {

void AddSessionCommands(CLI::App& root, Actions* actions);

}  // namespace statehouse::cli
