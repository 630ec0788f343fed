#include "clients/cli/config_file.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/str_format.h"

namespace statehouse::cli {
namespace {

// Reads the text from left to right. Only arrays go over the end of a line.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  int line() const { return line_; }
  bool AtEnd() const { return text_.empty(); }
  // Behind blanks, at a comment or the end of the line.
  bool AtLineEnd() {
    SkipBlanks();
    return text_.empty() || text_.front() == '\n' || text_.front() == '#';
  }
  void NextLine() {
    text_.remove_prefix(std::min(text_.find('\n'), text_.size()));
    if (text_.empty()) return;
    text_.remove_prefix(1);
    ++line_;
  }
  bool Take(char c) {
    SkipBlanks();
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  // Letters, digits, '_', '-' and whatever `also` lists.
  std::string TakeWord(std::string_view also) {
    SkipBlanks();
    size_t end = 0;
    while (end < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[end])) != 0 || text_[end] == '_' ||
                                  text_[end] == '-' || also.find(text_[end]) != std::string_view::npos)) {
      ++end;
    }
    std::string word(text_.substr(0, end));
    text_.remove_prefix(end);
    return word;
  }
  // One value, or an array's.
  absl::StatusOr<std::vector<std::string>> TakeValues() {
    std::vector<std::string> values;
    const bool is_array = Take('[');
    while (is_array && AtLineEnd() && !text_.empty()) NextLine();
    if (is_array && Take(']')) return values;
    do {
      absl::StatusOr<std::string> value = TakeValue();
      if (!value.ok()) return value.status();
      values.push_back(*std::move(value));
      if (!is_array) return values;
      while (AtLineEnd() && !text_.empty()) NextLine();
      const bool goes_on = Take(',');
      while (AtLineEnd() && !text_.empty()) NextLine();
      if (Take(']')) return values;
      if (!goes_on) return Error(", or ]");
    } while (true);
  }
  absl::Status Error(std::string_view expected) const {
    return absl::InvalidArgumentError(
        absl::StrFormat("line %d: expected %s at \"%s\"", line_, expected, text_.substr(0, text_.find('\n'))));
  }

 private:
  void SkipBlanks() {
    while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\t' || text_.front() == '\r'))
      text_.remove_prefix(1);
  }

  absl::StatusOr<std::string> TakeValue() {
    if (Take('"')) return TakeBasicString();
    if (Take('\'')) {
      const size_t end = text_.find_first_of("'\n");
      if (end == std::string_view::npos || text_[end] == '\n') return Error("a closing '");
      std::string value(text_.substr(0, end));
      text_.remove_prefix(end + 1);
      return value;
    }
    const std::string_view rest = text_;
    std::string word = TakeWord("+.");
    const bool is_number = !word.empty() && (std::isdigit(static_cast<unsigned char>(word.front())) != 0 ||
                                             word.front() == '-' || word.front() == '+' || word.front() == '.');
    if (is_number) return WithoutSeparators(word);
    if (word == "true" || word == "false" || word == "inf") return word;
    text_ = rest;
    return Error("a \"string\", a number, true or false");
  }

  // 1_000 is 1000; what else is no number is the flag's to refuse.
  static std::string WithoutSeparators(const std::string& number) {
    std::string digits;
    for (size_t i = 0; i < number.size(); ++i) {
      const auto is_digit = [&](size_t at) { return std::isdigit(static_cast<unsigned char>(number[at])) != 0; };
      const bool separates = number[i] == '_' && i > 0 && i + 1 < number.size() && is_digit(i - 1) && is_digit(i + 1);
      if (!separates) digits += number[i];
    }
    return digits;
  }

  absl::StatusOr<std::string> TakeBasicString() {
    std::string value;
    while (!text_.empty() && text_.front() != '"' && text_.front() != '\n') {
      char c = text_.front();
      text_.remove_prefix(1);
      if (c == '\\') {
        constexpr std::string_view kNames = "ntr\"\\", kMeanings = "\n\t\r\"\\";
        const size_t which = text_.empty() ? std::string_view::npos : kNames.find(text_.front());
        if (which == std::string_view::npos) return Error("one of \\n \\t \\r \\\" \\\\");
        c = kMeanings[which];
        text_.remove_prefix(1);
      }
      value += c;
    }
    if (text_.empty() || text_.front() != '"') return Error("a closing \"");
    text_.remove_prefix(1);
    return value;
  }

  std::string_view text_;
  int line_ = 1;
};

// `key = value` in `section`, which a dotted key adds to.
absl::StatusOr<ConfigEntry> TakeEntry(Parser& parser, const std::string& section) {
  ConfigEntry entry = {section, parser.TakeWord("."), {}, parser.line()};
  if (const size_t dot = entry.key.rfind('.'); dot != std::string::npos) {
    entry.section += (section.empty() ? "" : ".") + entry.key.substr(0, dot);
    entry.key.erase(0, dot + 1);
  }
  if (entry.key.empty()) return parser.Error("a key");
  if (!parser.Take('=')) return parser.Error("=");
  absl::StatusOr<std::vector<std::string>> values = parser.TakeValues();
  if (!values.ok()) return values.status();
  entry.values = *std::move(values);
  return entry;
}

}  // namespace

absl::StatusOr<std::vector<ConfigEntry>> ParseConfig(std::string_view text) {
  std::vector<ConfigEntry> entries;
  std::map<std::pair<std::string, std::string>, int> lines;  // of each section's keys
  std::string section;
  for (Parser parser(text); !parser.AtEnd(); parser.NextLine()) {
    if (parser.AtLineEnd()) continue;
    if (parser.Take('[')) {
      section = parser.TakeWord(".");
      if (section.empty()) return parser.Error("a section's name");
      if (!parser.Take(']')) return parser.Error("]");
    } else {
      absl::StatusOr<ConfigEntry> entry = TakeEntry(parser, section);
      if (!entry.ok()) return entry.status();
      const auto [known, is_new] = lines.try_emplace({entry->section, entry->key}, entry->line);
      if (!is_new) {
        return absl::InvalidArgumentError(
            absl::StrFormat("line %d: %s is set in line %d already", entry->line, entry->key, known->second));
      }
      entries.push_back(*std::move(entry));
    }
    if (!parser.AtLineEnd()) return parser.Error("the end of the line");
  }
  return entries;
}

std::filesystem::path DefaultConfigFile() {
  const char* config = std::getenv("XDG_CONFIG_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path own;
  if (config != nullptr && *config == '/') {
    own = std::filesystem::path(config) / "statehouse" / "config.toml";
  } else if (home != nullptr && *home != '\0') {
    own = std::filesystem::path(home) / ".config" / "statehouse" / "config.toml";
  }
  std::error_code ignored;
  if (!own.empty() && std::filesystem::exists(own, ignored)) return own;
  const std::filesystem::path system = "/etc/statehouse/config.toml";
  return std::filesystem::exists(system, ignored) ? system : std::filesystem::path();
}

}  // namespace statehouse::cli
