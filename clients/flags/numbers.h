// Numbers as people type them. Thread-safety: stateless.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace statehouse {

// What a number may be; without values, all that its type holds. Infinity and NaN are never allowed but for `infinite`.
template <typename T>
struct Bounds {
  T least = std::numeric_limits<T>::lowest();
  T most = std::numeric_limits<T>::max();
  bool above = false;     // more than `least`, not `least` itself
  bool infinite = false;  // "inf" is allowed, too
};

// "0 to 65535", "1 or more", "above 0"; empty if every number of the type is allowed, negative ones too.
template <typename T>
std::string BoundsText(const Bounds<T>& bounds);

// Reads all of `text`: decimal digits with at most a sign, and for double also a fraction and an exponent.
// INVALID_ARGUMENT names the text and what is allowed, but no flag. For int32_t, int64_t, uint64_t and double.
template <typename T>
absl::StatusOr<T> ParseNumber(std::string_view text, const Bounds<T>& bounds = {});

// The error for a value that is not allowed: "<flag>: <value> is not allowed; expected …" without the flag.
absl::Status NotAllowed(std::string_view value, std::string_view expected);

}  // namespace statehouse
