#include "clients/cli/config_file.h"

#include <cctype>
#include <cstdlib>
#include <optional>
#include <system_error>

#include "absl/strings/str_format.h"

namespace statehouse::cli {
namespace {

// Reads one line from left to right.
class LineParser {
 public:
  LineParser(std::string_view text, int line) : text_(text), line_(line) {}

  void SkipBlanks() {
    while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\t' || text_.front() == '\r'))
      text_.remove_prefix(1);
  }
  bool AtEnd() {
    SkipBlanks();
    return text_.empty() || text_.front() == '#';
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
  absl::StatusOr<std::string> TakeValue() {
    if (Take('"')) return TakeBasicString();
    if (Take('\'')) {
      const size_t end = text_.find('\'');
      if (end == std::string_view::npos) return Error("a closing '");
      std::string value(text_.substr(0, end));
      text_.remove_prefix(end + 1);
      return value;
    }
    std::string word = TakeWord("+.");
    const bool is_number = !word.empty() && (std::isdigit(static_cast<unsigned char>(word.front())) != 0 ||
                                             word.front() == '-' || word.front() == '+' || word.front() == '.');
    if (is_number || word == "true" || word == "false") return word;
    return Error("a \"string\", a number, true or false");
  }
  absl::Status Error(std::string_view expected) const {
    return absl::InvalidArgumentError(absl::StrFormat("line %d: expected %s at \"%s\"", line_, expected, text_));
  }

 private:
  absl::StatusOr<std::string> TakeBasicString() {
    std::string value;
    while (!text_.empty() && text_.front() != '"') {
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
    if (!Take('"')) return Error("a closing \"");
    return value;
  }

  std::string_view text_;
  const int line_;
};

absl::StatusOr<std::vector<std::string>> ParseValues(LineParser& parser) {
  std::vector<std::string> values;
  const bool is_array = parser.Take('[');
  if (is_array && parser.Take(']')) return values;
  do {
    absl::StatusOr<std::string> value = parser.TakeValue();
    if (!value.ok()) return value.status();
    values.push_back(*std::move(value));
    if (is_array && parser.Take(']')) return values;
  } while (is_array && parser.Take(','));
  if (is_array) return parser.Error(", or ]");
  return values;
}

}  // namespace

absl::StatusOr<std::vector<ConfigEntry>> ParseConfig(std::string_view text) {
  std::vector<ConfigEntry> entries;
  std::string section;
  for (int line = 1; !text.empty(); ++line) {
    const size_t end = std::min(text.find('\n'), text.size());
    LineParser parser(text.substr(0, end), line);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (parser.AtEnd()) continue;
    if (parser.Take('[')) {
      section = parser.TakeWord(".");
      if (section.empty()) return parser.Error("a section's name");
      if (!parser.Take(']')) return parser.Error("]");
    } else {
      ConfigEntry entry = {section, parser.TakeWord(""), {}, line};
      if (entry.key.empty()) return parser.Error("a key");
      if (!parser.Take('=')) return parser.Error("=");
      absl::StatusOr<std::vector<std::string>> values = ParseValues(parser);
      if (!values.ok()) return values.status();
      entry.values = *std::move(values);
      entries.push_back(std::move(entry));
    }
    if (!parser.AtEnd()) return parser.Error("the end of the line");
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
