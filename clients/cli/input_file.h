// Reading what a flag names as a file, whole. Thread-safety: functions without state.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace statehouse::cli {

inline constexpr int64_t kAnySize = INT64_MAX;

// The bytes of `path`; "-" is standard input. `what` stands before each error, such as "--file". INVALID_ARGUMENT: more
// than `most_bytes`, of which no more is read, or a folder; else the system's error, which names the path.
absl::StatusOr<std::string> ReadInput(const std::string& what, const std::string& path, int64_t most_bytes);

}  // namespace statehouse::cli
