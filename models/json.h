// JSON as checkpoint files use it, read strictly: duplicate keys, invalid UTF-8, deep nesting and trailing text are
// refused. The library's exceptions stop here. Thread-safety: free functions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace statehouse {

struct JsonLimits {
  int64_t max_bytes = 64 << 20;   // of a file
  int64_t max_values = 16 << 20;  // of all kinds, nested ones included: bounds the memory that a small text can claim
  int max_depth = 64;
};

// `where` opens every error message: the file, and the part of it if need be. INVALID_ARGUMENT.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, const std::string& where,
                                         const JsonLimits& limits = {});

// NOT_FOUND if the file is missing; INVALID_ARGUMENT if it is no regular file, too large, or malformed.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::filesystem::path& file, const JsonLimits& limits = {});

// A name from a file as it may stand in a message or a log line: quoted, control characters escaped, shortened.
std::string QuotedName(std::string_view name);

}  // namespace statehouse
