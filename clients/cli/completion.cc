// Completion scripts for bash, zsh and fish.
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "clients/cli/command_spec.h"

namespace statehouse::cli {
namespace {

using Path = std::vector<std::string>;

// Calls `visit` for the program itself and for every command below it.
void Walk(const CommandSpec& command, const Path& path,
          const std::function<void(const CommandSpec&, const Path&)>& visit) {
  visit(command, path);
  for (const CommandSpec& sub : command.commands) {
    Path sub_path = path;
    sub_path.push_back(sub.name);
    Walk(sub, sub_path, visit);
  }
}

// A switch's --no-… is one of its own here.
std::vector<FlagSpec> AllFlags(const CommandSpec& root, const CommandSpec& command) {
  std::vector<FlagSpec> flags = command.flags;
  if (&command != &root) flags.insert(flags.end(), root.flags.begin(), root.flags.end());
  for (const FlagSpec& flag : command.flags) {
    if (!flag.negation.empty()) flags.push_back({.name = flag.negation, .help = absl::StrCat("Turn off ", flag.name)});
  }
  return flags;
}

std::string BashScript(const CommandSpec& root) {
  std::string steps, words, values;
  Walk(root, {}, [&](const CommandSpec& command, const Path& path) {
    const std::string here = absl::StrJoin(path, " ");
    if (!path.empty())
      absl::StrAppend(&steps, "      \"", absl::StrJoin(path.begin(), path.end() - 1, " "), "|", path.back(),
                      "\") path=\"", here, "\" ;;\n");
    std::vector<std::string> all;
    for (const CommandSpec& sub : command.commands) all.push_back(sub.name);
    for (const FlagSpec& flag : AllFlags(root, command)) {
      if (!flag.positional) all.push_back(flag.name);
      if (!flag.choices.empty()) {
        const std::string choices = absl::StrJoin(flag.choices, " ");
        if (flag.positional)
          all.push_back(choices);
        else
          absl::StrAppend(&values, "    \"", here, "|", flag.name, "\") COMPREPLY=($(compgen -W \"", choices,
                          "\" -- \"$cur\")); return ;;\n");
      } else if (!flag.positional && !flag.value.empty()) {
        absl::StrAppend(&values, "    \"", here, "|", flag.name, "\") COMPREPLY=(",
                        flag.takes_path ? "$(compgen -f -- \"$cur\")" : "", "); return ;;\n");
      }
    }
    absl::StrAppend(&words, "    \"", here, "\") words=\"", absl::StrJoin(all, " "), "\" ;;\n");
  });
  return absl::StrCat(
      "# bash completion of ", root.name, "\n_", root.name,
      "() {\n  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path=\"\" words=\"\" i\n"
      "  COMPREPLY=()\n"
      "  for ((i = 1; i < COMP_CWORD; ++i)); do\n    case \"$path|${COMP_WORDS[i]}\" in\n",
      steps, "    esac\n  done\n  case \"$path|$prev\" in\n", values, "  esac\n  case \"$path\" in\n", words,
      "  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
      "  [[ ${#COMPREPLY[@]} -eq 0 && $cur != -* ]] && COMPREPLY=($(compgen -f -- \"$cur\"))\n}\n"
      "complete -o filenames -F _",
      root.name, " ", root.name, "\n");
}

// Text within single quotes of zsh's _arguments.
std::string ZshText(const std::string& text) {
  return absl::StrReplaceAll(text, {{"'", "'\\''"}, {"[", "\\["}, {"]", "\\]"}, {":", "\\:"}});
}

std::string ZshAction(const FlagSpec& flag) {
  if (!flag.choices.empty()) return absl::StrCat("(", absl::StrJoin(flag.choices, " "), ")");
  return flag.takes_path ? "_files" : " ";
}

std::string ZshScript(const CommandSpec& root) {
  std::string functions;
  Walk(root, {}, [&](const CommandSpec& command, const Path& path) {
    const std::string name = absl::StrCat("_", root.name, path.empty() ? "" : "_", absl::StrJoin(path, "_"));
    absl::StrAppend(&functions, name, "() {\n  local line state\n  _arguments -C \\\n");
    for (const FlagSpec& flag : AllFlags(root, command)) {
      if (flag.positional) {
        absl::StrAppend(&functions, "    '::", flag.name, ":", ZshAction(flag), "' \\\n");
      } else {
        absl::StrAppend(&functions, "    '*", flag.name, "[", ZshText(flag.help), "]",
                        flag.value.empty() ? "" : absl::StrCat(":", ZshText(flag.value), ":", ZshAction(flag)),
                        "' \\\n");
      }
    }
    if (command.commands.empty()) {
      absl::StrAppend(&functions, "    && return\n}\n");
      return;
    }
    absl::StrAppend(&functions,
                    "    '1: :->command' '*::argument:->arguments' && return\n  case $state in\n    command)\n"
                    "      local -a commands=(\n");
    for (const CommandSpec& sub : command.commands) {
      absl::StrAppend(&functions, "        '", sub.name, ":", absl::StrReplaceAll(sub.help, {{"'", "'\\''"}}), "'\n");
    }
    absl::StrAppend(&functions,
                    "      )\n      _describe command commands ;;\n    arguments)\n      case $line[1] in\n");
    for (const CommandSpec& sub : command.commands) {
      absl::StrAppend(&functions, "        ", sub.name, ") ", name, "_", sub.name, " ;;\n");
    }
    absl::StrAppend(&functions, "      esac ;;\n  esac\n}\n");
  });
  return absl::StrCat("#compdef ", root.name, "\n", functions, "compdef _", root.name, " ", root.name, "\n");
}

std::string FishScript(const CommandSpec& root) {
  const auto quoted = [](const std::string& text) {
    return "'" + absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}}) + "'";
  };
  std::string script = absl::StrCat("# fish completion of ", root.name, "\ncomplete -c ", root.name, " -f\n");
  Walk(root, {}, [&](const CommandSpec& command, const Path& path) {
    // Where this command is the last one on the line so far.
    std::string here =
        path.empty() ? "__fish_use_subcommand" : absl::StrCat("__fish_seen_subcommand_from ", path.back());
    if (path.size() > 1) here = absl::StrCat("__fish_seen_subcommand_from ", path.front(), "; and ", here);
    std::vector<std::string> subs;
    for (const CommandSpec& sub : command.commands) subs.push_back(sub.name);
    if (!path.empty() && !subs.empty())
      absl::StrAppend(&here, "; and not __fish_seen_subcommand_from ", absl::StrJoin(subs, " "));
    const std::string start = absl::StrCat("complete -c ", root.name, " -n ", quoted(here));
    for (const CommandSpec& sub : command.commands)
      absl::StrAppend(&script, start, " -a ", sub.name, " -d ", quoted(sub.help), "\n");
    for (const FlagSpec& flag : AllFlags(root, command)) {
      if (flag.positional) {
        if (!flag.choices.empty())
          absl::StrAppend(&script, start, " -a ", quoted(absl::StrJoin(flag.choices, " ")), "\n");
        else if (flag.takes_path)
          absl::StrAppend(&script, start, " -F\n");
        continue;
      }
      absl::StrAppend(&script, start, " -l ", flag.name.substr(2),
                      flag.short_name.empty() ? "" : " -s " + flag.short_name.substr(1));
      if (!flag.choices.empty())
        absl::StrAppend(&script, " -x -a ", quoted(absl::StrJoin(flag.choices, " ")));
      else if (!flag.value.empty())
        absl::StrAppend(&script, flag.takes_path ? " -r -F" : " -x");
      absl::StrAppend(&script, " -d ", quoted(flag.help), "\n");
    }
  });
  return script;
}

}  // namespace

std::string CompletionScript(const CommandSpec& root, std::string_view shell) {
  if (shell == "bash") return BashScript(root);
  if (shell == "zsh") return ZshScript(root);
  if (shell == "fish") return FishScript(root);
  return "";
}

}  // namespace statehouse::cli
