#include "clients/cli/scripted_reader.h"

#include <algorithm>
#include <thread>
#include <utility>

namespace statehouse::cli {

ScriptedReader::ScriptedReader(std::vector<std::string> lines, std::unique_ptr<LineReader> rest, Interrupts& interrupts,
                               Options options)
    : lines_(std::make_move_iterator(lines.begin()), std::make_move_iterator(lines.end())),
      rest_(std::move(rest)),
      interrupts_(interrupts),
      options_(options) {}

LineReader::Result ScriptedReader::Read(const std::string& prompt, std::string* line) {
  if (lines_.empty()) return rest_->Read(prompt, line);
  // libedit wants \1 around what has no width; a plain stream does not.
  std::string shown = prompt;
  shown.erase(std::remove(shown.begin(), shown.end(), '\1'), shown.end());
  std::fputs(shown.c_str(), options_.out);
  const bool typed = Type(lines_.front());
  std::fputc('\n', options_.out);
  std::fflush(options_.out);
  if (!typed) {
    lines_.clear();
    return Result::kInterrupted;
  }
  *line = std::move(lines_.front());
  lines_.pop_front();
  return Result::kLine;
}

bool ScriptedReader::Type(const std::string& line) {
  for (size_t i = 0; i < line.size(); ++i) {
    const bool starts_character = (static_cast<unsigned char>(line[i]) & 0xC0) != 0x80;
    if (starts_character && options_.pause_per_character.count() > 0) {
      std::fflush(options_.out);
      std::this_thread::sleep_for(options_.pause_per_character);
    }
    if (interrupts_.Take()) return false;
    std::fputc(line[i], options_.out);
  }
  return true;
}

}  // namespace statehouse::cli
