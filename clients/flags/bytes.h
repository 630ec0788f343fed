// Amounts of memory as people type them. Thread-safety: stateless.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace statehouse {

// "65536", "64MiB", "1.5GiB", "80GB", in any case: 1 KiB is 1024 bytes, 1 K and 1 KB are 1000; a part of a byte is
// dropped. INVALID_ARGUMENT names the text and what is allowed, but no flag.
absl::StatusOr<int64_t> ParseBytes(std::string_view text);

}  // namespace statehouse
