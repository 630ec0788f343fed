// What counts as text on the wire. Thread-safety: functions without state.
#pragma once

#include <string>
#include <string_view>

namespace statehouse {

// Bytes up to the first one that is not part of well-formed UTF-8 (no surrogates, no overlong forms); size() if all
// are.
size_t ValidUtf8Prefix(std::string_view text);
inline bool IsValidUtf8(std::string_view text) { return ValidUtf8Prefix(text) == text.size(); }
// Each byte that is not part of a character becomes U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

}  // namespace statehouse
