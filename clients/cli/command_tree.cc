#include "clients/cli/command_tree.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/cli/config_file.h"
#include "clients/cli/generate.h"
#include "clients/cli/printing.h"
#include "clients/cli/terminal.h"

namespace statehouse::cli {
namespace {

constexpr int kExitUsage = 2;
constexpr char kConfigEnv[] = "STATEHOUSE_CONFIG";

// --help, --version and --config cannot be set from outside.
bool IsSettable(const CLI::Option& option) {
  return !option.get_lnames().empty() && option.get_configurable() && option.get_lnames().front() != "help" &&
         option.get_lnames().front() != "version" && option.get_lnames().front() != "config";
}

// The name by which environment and config file set an option: its own, or a second one that ends in it ("--bench-json"
// beside "--json"), where the first means something else in other commands.
std::string SettingName(const CLI::Option& option) {
  const std::string& own = option.get_lnames().front();
  for (const std::string& other : option.get_lnames()) {
    if (other.size() > own.size() && other.ends_with("-" + own) && other != "no-" + own) return other;
  }
  return own;
}

void AssignEnvNames(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (IsSettable(*option)) option->envname(EnvNameOf(SettingName(*option)));
  }
}

void ForEach(CLI::App& app, const std::function<void(CLI::App&)>& visit) {
  visit(app);
  for (CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; })) ForEach(*sub, visit);
}

// The commands that the command line chose, from the outermost to the innermost.
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

FlagSpec DescribeOption(const CLI::Option& option) {
  FlagSpec flag;
  flag.positional = option.get_lnames().empty() && option.get_snames().empty();
  if (flag.positional) {
    flag.name = option.get_name(true);
  } else {
    flag.name = option.get_lnames().empty() ? "-" + option.get_snames().front() : "--" + option.get_lnames().front();
    if (!option.get_snames().empty() && !option.get_lnames().empty())
      flag.short_name = "-" + option.get_snames().front();
  }
  flag.help = option.get_description();
  flag.group = option.get_group() == "Options" ? "Flags" : option.get_group();
  flag.default_value = option.get_default_str();
  flag.required = option.get_required();
  if (option.get_items_expected_max() > 0) flag.value = option.get_type_name();
  // CLI11 writes what a value is checked for behind its type: "TEXT:{auto,f32}", "NUMBER:NONNEGATIVE".
  if (const size_t colon = flag.value.find(':'); colon != std::string::npos && option.get_type_size() > 0) {
    const std::string checks = flag.value.substr(colon + 1);
    if (checks.size() > 2 && checks.front() == '{' && checks.back() == '}') {
      flag.choices = CLI::detail::split(checks.substr(1, checks.size() - 2), ',');
    }
    const bool is_checked =
        !flag.choices.empty() || checks.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ") == std::string::npos;
    if (is_checked) flag.value.resize(colon);
  }
  for (const char* kind : {"FILE", "DIR", "PATH"}) flag.takes_path |= flag.value.find(kind) != std::string::npos;
  if (IsSettable(option)) {
    flag.config_key = SettingName(option);
    flag.env = EnvNameOf(flag.config_key);
  } else if (flag.name == "--config") {
    flag.env = kConfigEnv;
  }
  return flag;
}

CommandSpec DescribeCommand(const CLI::App& app, const Actions& actions) {
  CommandSpec command;
  command.name = app.get_name();
  command.help = app.get_description();
  command.footer = app.get_footer();
  command.runs = actions.count(&app) > 0;
  for (const CLI::Option* option : app.get_options()) {
    // --help of every command is listed once, among the flags of the program.
    if (option == app.get_help_ptr() && app.get_parent() != nullptr) continue;
    command.flags.push_back(DescribeOption(*option));
  }
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    command.commands.push_back(DescribeCommand(*sub, actions));
  }
  return command;
}

// Reads the config file as CLI11 asks for it, and hands over what the chosen command has not been told already by the
// environment, which counts more (and less than the command line).
class ConfigReader : public CLI::Config {
 public:
  ConfigReader(const CLI::App& root, const Actions& actions) : root_(root), actions_(actions) {}

  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return ""; }

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    const std::vector<const CLI::App*> chosen = ChosenCommands(root_);
    const bool wants_help =
        std::any_of(chosen.begin(), chosen.end(), [](const CLI::App* app) { return app->get_help_ptr()->count() > 0; });
    if (wants_help) return {};
    const std::string text{std::istreambuf_iterator<char>(input), std::istreambuf_iterator<char>()};
    absl::StatusOr<std::vector<ConfigEntry>> entries = ParseConfig(text);
    if (!entries.ok()) throw CLI::ConfigError(absl::StrCat("config file: ", std::string(entries.status().message())));
    const CommandSpec spec = DescribeTree(root_, actions_);
    for (const ConfigEntry& entry : *entries) CheckKnown(spec, entry);
    std::vector<CLI::ConfigItem> items;
    const std::vector<std::string> path = PathOf(chosen);
    for (const CLI::Option* option : chosen.back()->get_options()) {
      if (!IsSettable(*option)) continue;
      const std::string name = SettingName(*option);
      const char* env = std::getenv(EnvNameOf(name).c_str());
      const ConfigEntry* entry = FindEntry(*entries, absl::StrJoin(path, "."), name);
      if (entry == nullptr || (env != nullptr && *env != '\0')) continue;
      CLI::ConfigItem item;
      item.parents = path;
      item.name = entry->key;
      item.inputs = entry->values;
      items.push_back(std::move(item));
    }
    return items;
  }

 private:
  // The entry of the command's own section, else the one at the top.
  static const ConfigEntry* FindEntry(const std::vector<ConfigEntry>& entries, const std::string& section,
                                      const std::string& key) {
    const ConfigEntry* found = nullptr;
    for (const ConfigEntry& entry : entries) {
      if (entry.key != key) continue;
      if (entry.section == section) return &entry;
      if (entry.section.empty()) found = &entry;
    }
    return found;
  }

  static void CollectKeys(const CommandSpec& command, bool recurse, std::vector<std::string>* keys) {
    for (const FlagSpec& flag : command.flags) {
      if (!flag.config_key.empty()) keys->push_back(flag.config_key);
    }
    for (const CommandSpec& sub : command.commands) {
      if (recurse) CollectKeys(sub, true, keys);
    }
  }

  // A key that no command has is a slip, and would otherwise do nothing.
  static void CheckKnown(const CommandSpec& root, const ConfigEntry& entry) {
    const CommandSpec* command = &root;
    std::vector<std::string> known;
    if (!entry.section.empty()) {
      for (const std::string& word : CLI::detail::split(entry.section, '.')) {
        const CommandSpec* next = command->Find(word);
        if (next == nullptr) {
          for (const CommandSpec& sub : command->commands) known.push_back(sub.name);
          throw CLI::ConfigError(Unknown(entry.line, "command", word, known));
        }
        command = next;
      }
    }
    CollectKeys(*command, entry.section.empty(), &known);
    if (std::find(known.begin(), known.end(), entry.key) == known.end()) {
      throw CLI::ConfigError(Unknown(entry.line, "flag", entry.key, known));
    }
  }

  static std::string Unknown(int line, const char* what, const std::string& word,
                             const std::vector<std::string>& known) {
    const std::string nearest = Nearest(word, known);
    return absl::StrFormat("config file, line %d: there is no %s \"%s\"%s", line, what, word,
                           nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
  }

  const CLI::App& root_;
  const Actions& actions_;
};

// Behind "--", where nothing is a flag.
bool IsText(const std::string& word, int argc, const char* const* argv) {
  const char* const* const end = argv + argc;
  const char* const* const dashes = std::find(argv, end, std::string_view("--"));
  return std::find(argv, dashes, word) == dashes && std::find(dashes, end, word) != end;
}

// What is wrong with a word that nothing on the chosen path takes.
std::string ExplainExtra(const CommandSpec& root, const std::vector<std::string>& path, const std::string& word,
                         bool is_text) {
  const CommandSpec* command = &root;
  for (const std::string& name : path) command = command->Find(name);
  std::vector<std::string> candidates;
  const bool is_flag = !is_text && word.size() > 1 && word.front() == '-';
  if (is_flag) {
    for (const CommandSpec* owner : {command, &root}) {
      for (const FlagSpec& flag : owner->flags) {
        if (!flag.positional) candidates.push_back(flag.name);
      }
    }
  } else {
    for (const CommandSpec& sub : command->commands) candidates.push_back(sub.name);
  }
  const std::string bare = word.substr(0, word.find('='));
  const std::string nearest = Nearest(bare, candidates);
  const std::string hint = nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?");
  if (is_flag) return absl::StrCat("there is no flag ", bare, hint);
  if (!candidates.empty()) return absl::StrCat("there is no command ", word, hint);
  return absl::StrCat("\"", word, "\" is one argument too many; put quotes around text that holds spaces");
}

// A flag of an outer command that was written behind an inner one: CLI11 would take it, and nobody would look at it.
std::string MisplacedFlag(const std::vector<const CLI::App*>& chosen, int argc, const char* const* argv) {
  for (size_t outer = 1; outer + 1 < chosen.size(); ++outer) {
    for (const CLI::Option* option : chosen[outer]->get_options()) {
      if (option->get_lnames().empty() || option == chosen[outer]->get_help_ptr()) continue;
      std::string name = "--" + option->get_lnames().front();
      if (chosen.back()->get_option_no_throw(name) != nullptr) continue;
      for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word.substr(0, word.find('=')) == name) return name;
      }
    }
  }
  return "";
}

int UsageError(const CLI::App& root, const std::vector<std::string>& path, const std::string& message) {
  PrintError(stderr, absl::InvalidArgumentError(message));
  std::fprintf(stderr, "%s lists what there is.\n",
               absl::StrCat(root.get_name(), path.empty() ? "" : " ", absl::StrJoin(path, " "), " --help").c_str());
  return kExitUsage;
}

}  // namespace

void FinishTree(CLI::App& root, const std::string& version, Actions* actions) {
  CLI::App* completion = root.add_subcommand("completion", "Print a completion script for a shell.");
  auto shell = std::make_shared<std::string>();
  completion->add_option("SHELL", *shell, "The shell")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->footer(
      "Examples:\n"
      "  source <(statehouse completion bash)           # in ~/.bashrc\n"
      "  source <(statehouse completion zsh)            # in ~/.zshrc, behind compinit\n"
      "  statehouse completion fish | source            # in ~/.config/fish/config.fish");
  (*actions)[completion] = [&root, actions, shell] {
    Write(stdout, CompletionScript(DescribeTree(root, *actions), *shell));
    return 0;
  };
  root.set_version_flag("--version", version, "Print version, commit and build type, and leave");
  const char* config_env = std::getenv(kConfigEnv);
  const bool is_named = config_env != nullptr && *config_env != '\0';
  root.set_config(
          "--config", is_named ? config_env : DefaultConfigFile().string(),
          "Config file (TOML). Default: $XDG_CONFIG_HOME/statehouse/config.toml, else /etc/statehouse/config.toml",
          is_named)
      ->type_name("FILE");
  root.config_formatter(std::make_shared<ConfigReader>(root, *actions));
  ForEach(root, [](CLI::App& app) {
    app.fallthrough();  // --config and --version may stand anywhere
    // Only the chosen command looks at the environment: a variable meant for another must not make this one fail.
    app.preparse_callback([&app](size_t) { AssignEnvNames(app); });
  });
}

CommandSpec DescribeTree(const CLI::App& root, const Actions& actions) {
  CommandSpec spec = DescribeCommand(root, actions);
  for (FlagSpec& flag : spec.flags) {
    flag.group = "Everywhere";
    if (flag.name == "--config") flag.default_value.clear();  // the help text names all places
  }
  return spec;
}

namespace {

// RunCommandLine() without a look at what became of the output.
int Run(CLI::App& root, const Actions& actions, int argc, const char* const* argv) {
  const auto spec = [&] { return DescribeTree(root, actions); };
  const auto path = [&] { return PathOf(ChosenCommands(root)); };
  try {
    root.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    Write(stdout, HelpText(spec(), path()));
    return 0;
  } catch (const CLI::CallForVersion& version) {
    Write(stdout, absl::StrCat(version.what(), "\n"));
    return 0;
  } catch (const CLI::ParseError& error) {
    const std::vector<std::string> extras = root.remaining(true);
    if (extras.empty()) return UsageError(root, path(), error.what());
    const bool is_text = IsText(extras.front(), argc, argv);
    return UsageError(root, path(), ExplainExtra(spec(), path(), extras.front(), is_text));
  }
  const std::vector<const CLI::App*> chosen = ChosenCommands(root);
  const std::string misplaced = MisplacedFlag(chosen, argc, argv);
  if (!misplaced.empty()) {
    return UsageError(root, path(), absl::StrCat(absl::StrJoin(path(), " "), " has no flag ", misplaced));
  }
  const auto action = actions.find(chosen.back());
  if (action == actions.end()) {
    std::fputs(HelpText(spec(), path()).c_str(), stderr);
    return kExitUsage;
  }
  return action->second();
}

}  // namespace

int RunCommandLine(CLI::App& root, const Actions& actions, int argc, const char* const* argv) {
  return FinishOutput(Run(root, actions, argc, argv));
}

}  // namespace statehouse::cli
