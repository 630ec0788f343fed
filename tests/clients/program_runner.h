// Runs the built program and keeps what it printed. Thread-safety: one thread.
#pragma once

#include <string>
#include <vector>

namespace statehouse {

struct ProgramResult {
  int status = -1;  // exit status; -1: ended by a signal
  std::string out, err;
};

// Runs it with these words and this standard input, in a clean environment of its own (no config file, no STATEHOUSE_*
// variables but `environment`, "NAME=value"). `redirections` are a shell's, such as ">/dev/full"; they come last.
ProgramResult RunProgram(const std::vector<std::string>& words, const std::string& input = "",
                         const std::vector<std::string>& environment = {}, const std::string& redirections = "");

// Where the program lies.
std::string ProgramPath();

}  // namespace statehouse
