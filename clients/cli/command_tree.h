// What holds for every command alike, whoever defined it: environment variables, config file, help, completion,
// suggestions for misspelt words. All of it is derived from the CLI11 tree, in one place.
//
// Thread-safety: one thread, once per process.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "clients/cli/command_spec.h"

namespace CLI {
class App;
}

namespace statehouse::cli {

// What to run for a command, by its App; returns the program's exit status.
using Actions = std::map<const CLI::App*, std::function<int()>>;

// Adds `completion`, --config and --version to the finished tree, and gives every flag its environment variable.
// `version` is what --version prints.
void FinishTree(CLI::App& root, const std::string& version, Actions* actions);

// The tree as plain data. Commands without an action are those that need a sub-command.
CommandSpec DescribeTree(const CLI::App& root, const Actions& actions);

// Parses the command line and runs the command. Returns its exit status; 2 after a wrong command line, with a message
// on standard error that names the nearest command or flag.
int RunCommandLine(CLI::App& root, const Actions& actions, int argc, const char* const* argv);

}  // namespace statehouse::cli
