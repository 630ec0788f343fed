// Where the values of a command's flags come from: the command line, else the environment, else the command's section
// of the config file, else the file's top. Only what the chosen command takes is looked at: a variable meant for
// another must not make this one fail. Thread-safety: as CLI11's.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

#include "clients/cli/command_spec.h"
#include "clients/cli/command_tree.h"
#include "clients/cli/config_file.h"

namespace statehouse::cli {

// --help, --version and --config cannot be set from outside.
bool IsSettable(const CLI::Option& option);
// The name by which environment and config file set an option: its own, or a second one that ends in it ("--bench-json"
// beside "--json"), where the first means something else in other commands.
std::string SettingName(const CLI::Option& option);

// The commands that the command line chose, from the outermost to the innermost, and their names without the program's.
std::vector<const CLI::App*> ChosenCommands(const CLI::App& root);
std::vector<std::string> PathOf(const std::vector<const CLI::App*>& commands);

// CLI11 asks it for the config file's values when it has read the command line, and takes the environment's for such,
// too.
class FlagSources : public CLI::Config {
 public:
  // What CLI11 is told to read where there is no config file: this class is to be asked all the same.
  static constexpr char kNoFile[] = "/dev/null";

  // Both must outlive this object.
  FlagSources(const CLI::App& root, const Actions& actions) : root_(root), actions_(actions) {}

  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return ""; }
  // Throws CLI::ConfigError, which names file and line.
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override;

  // "the environment variable STATEHOUSE_PORT", "port in line 3 of /etc/statehouse/config.toml"; empty: the command
  // line, or nothing gave it a value.
  std::string Of(const CLI::Option& option) const;

 private:
  void Add(const CLI::Option& option, const std::vector<ConfigEntry>& entries,
           std::vector<CLI::ConfigItem>* items) const;

  const CLI::App& root_;
  const Actions& actions_;
  mutable std::map<const CLI::Option*, std::string> sources_;
};

// The one of a finished tree that `app` belongs to; null before it was finished.
const FlagSources* SourcesOf(const CLI::App& app);

}  // namespace statehouse::cli
