// The flags of `statehouse info`. Thread-safety: one thread, once per process.
#pragma once

#include "server/commands/actions.h"

namespace statehouse {

void AddInfoCommand(CLI::App& root, CommandActions* actions);

}  // namespace statehouse
