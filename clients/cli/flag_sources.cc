#include "clients/cli/flag_sources.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace statehouse::cli {
namespace {

// Where `section` is empty, any command's key may stand; a section also knows its command's flags by their own names.
void CollectKeys(const CommandSpec& command, bool recurse, std::vector<std::string>* keys) {
  for (const FlagSpec& flag : command.flags) {
    if (flag.config_key.empty()) continue;
    keys->push_back(flag.config_key);
    if (!recurse) keys->push_back(flag.name.substr(2));
  }
  for (const CommandSpec& sub : command.commands) {
    if (recurse) CollectKeys(sub, true, keys);
  }
}

std::string Unknown(const char* what, const std::string& word, const std::vector<std::string>& known) {
  const std::string nearest = Nearest(word, known);
  return absl::StrCat("there is no ", what, " \"", word, "\"",
                      nearest.empty() ? "" : absl::StrCat("; did you mean \"", nearest, "\"?"));
}

// What is wrong with a section or a key that no command has: a slip, which would otherwise do nothing.
std::string ProblemOf(const CommandSpec& root, const ConfigEntry& entry) {
  const CommandSpec* command = &root;
  std::vector<std::string> known;
  if (!entry.section.empty()) {
    for (const std::string& word : CLI::detail::split(entry.section, '.')) {
      const CommandSpec* next = command->Find(word);
      if (next == nullptr) {
        for (const CommandSpec& sub : command->commands) known.push_back(sub.name);
        return Unknown("command", word, known);
      }
      command = next;
    }
  }
  CollectKeys(*command, entry.section.empty(), &known);
  return std::find(known.begin(), known.end(), entry.key) == known.end() ? Unknown("flag", entry.key, known) : "";
}

[[noreturn]] void Refuse(const std::string& file, int line, const std::string& what) {
  throw CLI::ConfigError(absl::StrFormat("config file %s, line %d: %s", file, line, what));
}

}  // namespace

bool IsSettable(const CLI::Option& option) {
  return !option.get_lnames().empty() && option.get_configurable() && option.get_lnames().front() != "help" &&
         option.get_lnames().front() != "version" && option.get_lnames().front() != "config";
}

std::string SettingName(const CLI::Option& option) {
  const std::string& own = option.get_lnames().front();
  for (const std::string& other : option.get_lnames()) {
    if (other.size() > own.size() && other.ends_with("-" + own) && other != "no-" + own) return other;
  }
  return own;
}

std::vector<const CLI::App*> ChosenCommands(const CLI::App& root) {
  std::vector<const CLI::App*> chosen = {&root};
  while (!chosen.back()->get_subcommands().empty()) chosen.push_back(chosen.back()->get_subcommands().front());
  return chosen;
}

std::vector<std::string> PathOf(const std::vector<const CLI::App*>& commands) {
  std::vector<std::string> path;
  for (size_t i = 1; i < commands.size(); ++i) path.push_back(commands[i]->get_name());
  return path;
}

std::vector<CLI::ConfigItem> FlagSources::from_config(std::istream& input) const {
  const std::vector<const CLI::App*> chosen = ChosenCommands(root_);
  const bool wants_help =
      std::any_of(chosen.begin(), chosen.end(), [](const CLI::App* app) { return app->get_help_ptr()->count() > 0; });
  // These work whatever the file holds.
  if (wants_help || (root_.get_version_ptr() != nullptr && root_.get_version_ptr()->count() > 0)) return {};
  const std::string file = root_.get_config_ptr()->as<std::string>();
  const absl::StatusOr<std::vector<ConfigEntry>> entries =
      ParseConfig(std::string{std::istreambuf_iterator<char>(input), std::istreambuf_iterator<char>()});
  if (!entries.ok()) {
    throw CLI::ConfigError(absl::StrCat("config file ", file, ", ", std::string(entries.status().message())));
  }
  const CommandSpec spec = DescribeTree(root_, actions_);
  for (const ConfigEntry& entry : *entries) {
    if (const std::string problem = ProblemOf(spec, entry); !problem.empty()) Refuse(file, entry.line, problem);
  }
  std::vector<CLI::ConfigItem> items;
  for (const CLI::Option* option : chosen.back()->get_options()) {
    if (IsSettable(*option) && option->count() == 0) Add(*option, *entries, &items);
  }
  return items;
}

void FlagSources::Add(const CLI::Option& option, const std::vector<ConfigEntry>& entries,
                      std::vector<CLI::ConfigItem>* items) const {
  const std::string name = SettingName(option);
  const std::string& own = option.get_lnames().front();
  const std::string file = root_.get_config_ptr()->as<std::string>();
  CLI::ConfigItem item;
  item.parents = PathOf(ChosenCommands(root_));
  item.name = name;
  const std::string section = absl::StrJoin(item.parents, ".");
  const ConfigEntry* found = nullptr;  // of the command's own section, else at the top
  for (const ConfigEntry& entry : entries) {
    const bool is_inner = entry.section == section && (entry.key == name || entry.key == own);
    if (is_inner && found != nullptr && found->section == section) {
      Refuse(file, entry.line,
             absl::StrFormat("%s is set in line %d already, as %s", entry.key, found->line, found->key));
    }
    const bool is_top = entry.section.empty() && entry.key == name && found == nullptr;
    if (is_inner || is_top) found = &entry;
  }
  const std::string variable = EnvNameOf(name);
  if (const char* value = std::getenv(variable.c_str()); value != nullptr && *value != '\0') {
    item.inputs = {value};
    sources_[&option] = absl::StrCat("the environment variable ", variable);
  } else if (found != nullptr) {
    item.inputs = found->values;
    sources_[&option] = absl::StrFormat("%s in line %d of %s", found->key, found->line, file);
    const bool is_switch = option.get_items_expected_max() == 0;
    if (is_switch && item.inputs.size() != 1) {
      Refuse(file, found->line, absl::StrCat(found->key, ": an array is not allowed; expected true or false"));
    }
  } else {
    return;
  }
  items->push_back(std::move(item));
}

std::string FlagSources::Of(const CLI::Option& option) const {
  const auto found = sources_.find(&option);
  return found == sources_.end() ? "" : found->second;
}

const FlagSources* SourcesOf(const CLI::App& app) {
  const CLI::App* root = &app;
  while (root->get_parent() != nullptr) root = root->get_parent();
  return dynamic_cast<const FlagSources*>(root->get_config_formatter().get());
}

}  // namespace statehouse::cli
