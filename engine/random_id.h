// Names that nobody guesses and nothing else has: random hexadecimal digits. Thread-safety: free functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace statehouse {

// `digits`: a multiple of 8.
std::string RandomHex(size_t digits);
// Is it so many of 0 … 9, a … f?
bool IsHex(std::string_view text, size_t digits);

}  // namespace statehouse
