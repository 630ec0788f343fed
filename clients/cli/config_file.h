// The config file: TOML, as far as flags need it. Sections, and keys with strings, numbers, booleans and arrays of
// them.
//
//   address = "127.0.0.1:50051"     # for every command that has --address
//   [chat]                          # for this command only
//   temperature = 0.7
//   [bench.load]
//   goodput = ["ttft:200", "tpot:50"]
//
// Thread-safety: stateless.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace statehouse::cli {

struct ConfigEntry {
  std::string section;  // "bench.load"; empty before the first section
  std::string key;
  std::vector<std::string> values;  // one, or an array's
  int line = 0;                     // counted from 1
};

// INVALID_ARGUMENT names the line and what was expected there.
absl::StatusOr<std::vector<ConfigEntry>> ParseConfig(std::string_view text);

// $XDG_CONFIG_HOME/statehouse/config.toml (~/.config without it), else /etc/statehouse/config.toml; empty if neither is
// there.
std::filesystem::path DefaultConfigFile();

}  // namespace statehouse::cli
