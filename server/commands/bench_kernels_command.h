// The flags of `statehouse bench kernels`. Thread-safety: one thread, once per process.
#pragma once

#include "server/commands/actions.h"
#include "server/commands/bench_command.h"  // ShowProgress

namespace statehouse {

// Below `bench`, which AddBenchCommand() returned.
void AddKernelsBenchCommand(CLI::App& bench, ShowProgress show_progress, CommandActions* actions);

}  // namespace statehouse
