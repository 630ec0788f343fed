// The program's commands and flags as plain data: what help texts, completion scripts and suggestions are made from, so
// that they cannot say anything else than what is parsed. Filled by DescribeTree() in command_tree.h. Thread-safety:
// plain data.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace statehouse::cli {

struct FlagSpec {
  std::string name = {};                  // "--max-tokens"; of a positional argument its name in capitals
  std::string short_name = {};            // "-m", or empty
  std::string value = {};                 // what to write for its value, "INT"; empty: it takes none
  std::vector<std::string> choices = {};  // all allowed values, if they are few
  std::string range = {};                 // which numbers are allowed, "0 to 65535"; empty: all
  std::string negation = {};              // "--no-…", which turns a switch off; empty: there is none
  std::string help = {};
  std::string group = {};  // heading in the help text
  std::string default_value = {};
  std::string env = {};         // STATEHOUSE_…; empty: cannot be set so
  std::string config_key = {};  // empty: cannot be set so
  bool positional = false;
  bool required = false;
  bool takes_path = false;
};

struct CommandSpec {
  std::string name = {};  // one word
  std::string help = {};
  std::string footer = {};  // examples
  bool runs = true;         // false: needs a sub-command
  std::vector<FlagSpec> flags = {};
  std::vector<CommandSpec> commands = {};

  const CommandSpec* Find(std::string_view command) const;
};

// STATEHOUSE_MAX_TOKENS for "--max-tokens" or "max-tokens". One name for every command: it means the same wherever it
// is.
std::string EnvNameOf(std::string_view flag);

// The help text of the command that `path` leads to from `root` (empty: the program itself), 110 columns wide.
std::string HelpText(const CommandSpec& root, const std::vector<std::string>& path);

// A script for "bash", "zsh" or "fish"; empty for any other.
std::string CompletionScript(const CommandSpec& root, std::string_view shell);

// The candidate that `word` was probably meant to be; empty if none is near.
std::string Nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace statehouse::cli
