// Flags with a few words to choose from, which help and completion list. Thread-safety: stateless.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace statehouse {

// "fwd, bwd or decode"
std::string AnyOf(const std::vector<std::string>& words);

// For Option::check().
CLI::Validator OneOf(const std::vector<std::string>& words);

}  // namespace statehouse
