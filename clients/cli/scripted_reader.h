// Lines that were given beforehand (`chat --say TEXT`), shown as if somebody typed them; then the lines of another
// reader.
//
// Thread-safety: one thread.
#pragma once

#include <chrono>
#include <cstdio>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "clients/cli/interrupts.h"
#include "clients/cli/line_reader.h"

namespace statehouse::cli {

class ScriptedReader : public LineReader {
 public:
  struct Options {
    std::FILE* out = stdout;
    // Between two characters; 0 shows a line at once. For people who watch.
    std::chrono::milliseconds pause_per_character{0};
  };
  // `interrupts` must outlive this object.
  ScriptedReader(std::vector<std::string> lines, std::unique_ptr<LineReader> rest, Interrupts& interrupts,
                 Options options);

  // Shows `prompt` and the next line, and returns it. Ctrl-C while it is being typed drops all that were left.
  Result Read(const std::string& prompt, std::string* line) override;

 private:
  // False: interrupted.
  bool Type(const std::string& line);

  std::deque<std::string> lines_;
  const std::unique_ptr<LineReader> rest_;
  Interrupts& interrupts_;
  const Options options_;
};

}  // namespace statehouse::cli
