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

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "clients/cli/config_file.h"
#include "clients/cli/flag_sources.h"
#include "clients/cli/generate.h"
#include "clients/cli/printing.h"
#include "clients/cli/terminal.h"
#include "clients/flags/choices.h"
#include "clients/flags/numbers.h"

namespace statehouse::cli {
namespace {

constexpr int kExitUsage = 2;
constexpr char kConfigEnv[] = "STATEHOUSE_CONFIG";

void ForEach(CLI::App& app, const std::function<void(CLI::App&)>& visit) {
  visit(app);
  for (CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; })) ForEach(*sub, visit);
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
  // CLI11 writes what a value is checked for behind its type: "TEXT:{auto,f32}", "INT:0 to 9".
  if (const size_t colon = flag.value.find(':'); colon != std::string::npos && option.get_type_size() > 0) {
    const std::string checks = flag.value.substr(colon + 1);
    if (checks.size() > 2 && checks.front() == '{' && checks.back() == '}') {
      flag.choices = CLI::detail::split(checks.substr(1, checks.size() - 2), ',');
    }
    const bool is_kind = checks.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ") == std::string::npos;
    if (flag.choices.empty() && !is_kind) flag.range = checks;
    flag.value.resize(colon);
  }
  for (const char* kind : {"FILE", "DIR", "PATH"}) flag.takes_path |= flag.value.find(kind) != std::string::npos;
  for (const std::string& name : option.get_fnames()) {
    if (option.get_flag_value(name, "") == "false") flag.negation = "--" + name;
  }
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

// Values that mean something to everybody who writes a switch as a setting; case does not matter.
std::string CheckSwitch(std::string& text) {
  for (const char* word : {"true", "false", "on", "off", "yes", "no", "1", "0"}) {
    if (absl::EqualsIgnoreCase(text, word)) return "";
  }
  return std::string(NotAllowed(text, "true or false").message());
}

// Adds what is checked of every option alike. Without it, an empty value, as of an unset variable of a shell, would
// read as "not given", and a session, a token file or a result be dropped without a word. Free text may be empty, and
// what shows its type in brackets.
void CheckValues(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    const std::string type = option->get_type_name();
    if (option->get_items_expected_max() == 0) {
      option->check(CLI::Validator(CheckSwitch, ""));
    } else if (type.rfind("TEXT", 0) != 0 && type.rfind('[', 0) != 0) {
      const std::string expected =
          absl::StrCat(type.substr(0, type.find(':')), option->get_required() ? "" : "; leave it out for none");
      option->check(CLI::Validator(
          [expected](std::string& text) {
            return text.empty() ? std::string(NotAllowed(text, expected).message()) : "";
          },
          ""));
    }
  }
}

// CLI11's words for a wrong number of values, in ours; `what` follows "--flag: ".
std::string ExplainCount(const CLI::Option& option, const std::string& what) {
  if (what.rfind("At Most", 0) == 0) {
    return absl::StrFormat("%d values are not allowed; expected one", option.results().size());
  }
  std::string type = option.get_type_name();
  if (const size_t colon = type.find(':'); colon != std::string::npos) {
    const bool is_choice = type.back() == '}';
    type = is_choice ? absl::StrCat("one of ", absl::StrReplaceAll(type.substr(colon + 2), {{",", ", "}, {"}", ""}}))
                     : absl::StrCat(type.substr(0, colon), ", ", type.substr(colon + 1));
  }
  return absl::StrCat("a value is missing; expected ", type);
}

// What CLI11 says, completed by what it does not know: where the value came from.
std::string ExplainError(const CLI::App& root, const CLI::ParseError& error) {
  std::string what = error.what();
  if (dynamic_cast<const CLI::FileError*>(&error) != nullptr) {
    const bool is_of_environment = root.get_config_ptr()->count() == 0 && std::getenv(kConfigEnv) != nullptr;
    return absl::StrCat("--config: ", what,
                        is_of_environment ? absl::StrCat(" (set by the environment variable ", kConfigEnv, ")") : "");
  }
  std::vector<const CLI::App*> chosen = ChosenCommands(root);
  std::reverse(chosen.begin(), chosen.end());
  for (const CLI::App* app : chosen) {
    for (const CLI::Option* option : app->get_options()) {
      const std::string begin = option->get_name() + ": ";
      if (what.rfind(begin, 0) != 0) continue;
      const bool is_count = dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr;
      const std::string source = SourcesOf(root)->Of(*option);
      return absl::StrCat(begin,
                          is_count ? ExplainCount(*option, what.substr(begin.size())) : what.substr(begin.size()),
                          source.empty() ? "" : absl::StrCat(" (set by ", source, ")"));
    }
  }
  return what;
}

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
  completion->add_option("SHELL", *shell, "The shell")->required()->check(OneOf({"bash", "zsh", "fish"}));
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
  const std::string file = DefaultConfigFile().string();
  // Required, so that a file that is there and cannot be read is an error and not left out.
  root.set_config("--config",
                  is_named       ? config_env
                  : file.empty() ? FlagSources::kNoFile
                                 : file,
                  "Config file (of TOML what docs/server.md says). Default: $XDG_CONFIG_HOME/statehouse/config.toml, "
                  "else /etc/statehouse/config.toml",
                  /*config_required=*/true)
      ->type_name("FILE");
  root.config_formatter(std::make_shared<FlagSources>(root, *actions));
  ForEach(root, [](CLI::App& app) {
    app.fallthrough();  // --config and --version may stand anywhere
    CheckValues(app);
  });
}

CommandSpec DescribeTree(const CLI::App& root, const Actions& actions) {
  CommandSpec spec = DescribeCommand(root, actions);
  for (FlagSpec& flag : spec.flags) {
    flag.group = "Everywhere";
    if (flag.name != "--config") continue;
    flag.default_value.clear();  // the help text names all places
    flag.required = false;       // one of those is always there
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
    if (extras.empty()) return UsageError(root, path(), ExplainError(root, error));
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
