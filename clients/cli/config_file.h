// The config file: the part of TOML that flags need. Sections and dotted keys of letters, digits, - and _; values that
// are "basic" strings (with \n \t \r \" \\) or 'literal' ones, decimal numbers (1_000 too), inf, true, false, and
// arrays of these, over several lines if need be. Not: """multi-line""" strings, \u escapes, dates, quoted keys,
// {inline} tables, [[arrays]] of tables, arrays within arrays. Sections may come back; a key may be set once in each.
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

// INVALID_ARGUMENT names the line and what was expected there, or both lines that set a key.
absl::StatusOr<std::vector<ConfigEntry>> ParseConfig(std::string_view text);

// $XDG_CONFIG_HOME/statehouse/config.toml (~/.config without it), else /etc/statehouse/config.toml; empty if neither is
// there.
std::filesystem::path DefaultConfigFile();

}  // namespace statehouse::cli
