// Where the lines of a chat come from: a terminal with editing and history (libedit), or a pipe.
//
// Thread-safety: one thread.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "clients/cli/interrupts.h"

namespace statehouse::cli {

class LineReader {
 public:
  enum class Result {
    kLine,         // *line holds it, without its newline
    kInterrupted,  // Ctrl-C: what was typed is dropped
    kEnd,          // Ctrl-D on an empty line, or the end of the pipe
  };
  virtual ~LineReader() = default;
  // `prompt` is shown on a terminal only.
  virtual Result Read(const std::string& prompt, std::string* line) = 0;
};

// Reads standard input. On a terminal lines are kept in `history_file` (mode 0600; empty: not kept). `interrupts` must
// outlive the reader.
std::unique_ptr<LineReader> MakeLineReader(Interrupts& interrupts, const std::filesystem::path& history_file);

// $XDG_STATE_HOME/statehouse/chat_history, ~/.local/state/… without it; empty if there is no home.
std::filesystem::path DefaultHistoryFile();

}  // namespace statehouse::cli
