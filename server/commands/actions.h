// How a command of this folder says what to run: by the CLI11 command that was chosen. Thread-safety: plain data.
#pragma once

#include <functional>
#include <map>

namespace CLI {
class App;
}

namespace statehouse {

// Runs after parsing; returns the program's exit status.
using CommandActions = std::map<const CLI::App*, std::function<int()>>;

}  // namespace statehouse
