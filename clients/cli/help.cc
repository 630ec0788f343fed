// Help texts.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/command_spec.h"

namespace statehouse::cli {
namespace {

constexpr size_t kWidth = 110;
constexpr size_t kColumn = 34;

// Columns that UTF-8 text takes, as far as our own help texts need it: one per character.
size_t Columns(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// Appends `text`, broken into lines that start at `column`; the cursor stands there already.
void AppendWrapped(std::string_view text, size_t column, std::string* out) {
  size_t used = column;
  bool at_start = true;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    if (!at_start && used + 1 + Columns(word) > kWidth) {
      absl::StrAppend(out, "\n", std::string(column, ' '));
      used = column;
      at_start = true;
    }
    absl::StrAppend(out, at_start ? "" : " ", std::string(word));
    used += Columns(word) + (at_start ? 0 : 1);
    at_start = false;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  out->push_back('\n');
}

void AppendEntry(const std::string& left, const std::string& text, std::string* out) {
  absl::StrAppend(out, "  ", left);
  const size_t used = 2 + Columns(left);
  if (used + 2 > kColumn) {
    absl::StrAppend(out, "\n", std::string(kColumn, ' '));
  } else {
    out->append(kColumn - used, ' ');
  }
  AppendWrapped(text, kColumn, out);
}

// Without its full stop.
std::string FirstSentence(const std::string& text) {
  const std::string sentence = text.substr(0, text.find(". "));
  return sentence.substr(0, sentence.find_last_not_of('.') + 1);
}

void AppendFlag(const FlagSpec& flag, std::string* out) {
  std::string left =
      flag.positional ? flag.name : absl::StrCat(flag.short_name.empty() ? "    " : flag.short_name + ", ", flag.name);
  if (!flag.positional && !flag.value.empty()) absl::StrAppend(&left, " ", flag.value);
  std::string text = flag.help;
  std::vector<std::string> notes;
  if (!flag.choices.empty()) notes.push_back(absl::StrJoin(flag.choices, "|"));
  if (!flag.range.empty()) notes.push_back(flag.range);
  if (!flag.negation.empty()) notes.push_back(absl::StrCat("off: ", flag.negation));
  if (!flag.default_value.empty()) notes.push_back("default " + flag.default_value);
  if (flag.required) notes.push_back("required");
  if (!flag.env.empty()) notes.push_back(flag.env);
  if (!notes.empty()) absl::StrAppend(&text, " [", absl::StrJoin(notes, "; "), "]");
  AppendEntry(left, text, out);
}

std::string UsageLine(const std::vector<std::string>& words, const CommandSpec& command) {
  std::string line = absl::StrCat("Usage: ", absl::StrJoin(words, " "));
  if (!command.commands.empty()) absl::StrAppend(&line, command.runs ? " [COMMAND]" : " COMMAND");
  for (const FlagSpec& flag : command.flags) {
    if (flag.positional) absl::StrAppend(&line, flag.required ? " " : " [", flag.name, flag.required ? "" : "]");
  }
  return line + " [FLAGS]\n";
}

// Flags under their headings, in the order of their first flag.
void AppendFlags(const std::vector<FlagSpec>& flags, std::string* out) {
  std::vector<std::string> groups;
  for (const FlagSpec& flag : flags) {
    const std::string& group = flag.positional ? "Arguments" : flag.group;
    if (std::find(groups.begin(), groups.end(), group) == groups.end()) groups.push_back(group);
  }
  for (const std::string& group : groups) {
    absl::StrAppend(out, "\n", group, ":\n");
    for (const FlagSpec& flag : flags) {
      if ((flag.positional ? "Arguments" : flag.group) == group) AppendFlag(flag, out);
    }
  }
}

}  // namespace

std::string HelpText(const CommandSpec& root, const std::vector<std::string>& path) {
  const CommandSpec* command = &root;
  std::vector<std::string> words = {root.name};
  for (const std::string& word : path) {
    const CommandSpec* next = command->Find(word);
    if (next == nullptr) break;
    command = next;
    words.push_back(word);
  }
  std::string out;
  AppendWrapped(command->help, 0, &out);
  absl::StrAppend(&out, "\n", UsageLine(words, *command));
  if (!command->commands.empty()) {
    absl::StrAppend(&out, "\nCommands:\n");
    for (const CommandSpec& sub : command->commands) AppendEntry(sub.name, FirstSentence(sub.help), &out);
  }
  AppendFlags(command->flags, &out);
  if (command != &root) AppendFlags(root.flags, &out);
  if (!command->footer.empty()) absl::StrAppend(&out, "\n", command->footer, "\n");
  if (command == &root) {
    absl::StrAppend(&out, "\n", root.name, " COMMAND --help explains a command and its flags.\n");
  } else {
    out += '\n';
    AppendWrapped(
        absl::StrCat(
            "Each flag can be set by the environment variable that stands beside it (an empty one counts as not "
            "set), or in the config file: in [",
            absl::StrJoin(path, "."),
            "] under its name without the dashes, at the top under the variable's: max-tokens for "
            "STATEHOUSE_MAX_TOKENS."),
        0, &out);
  }
  return out;
}

}  // namespace statehouse::cli
