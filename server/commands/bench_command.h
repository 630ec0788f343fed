// The flags of `statehouse bench`. Thread-safety: one thread, once per process.
#pragma once

#include <cstdint>
#include <functional>

#include "server/commands/actions.h"

namespace statehouse {

// Shows how far long work has come: (what, done, of how many; 0: unknown). `nullptr` takes the display away.
using ShowProgress = std::function<void(const char* what, int64_t done, int64_t total)>;

// Returns the command, so that others may add theirs below it.
CLI::App* AddBenchCommand(CLI::App& root, ShowProgress show_progress, CommandActions* actions);

}  // namespace statehouse
