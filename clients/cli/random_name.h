// Names that no two calls share. Thread-safety: a function without state.
#pragma once

#include <string>

namespace statehouse::cli {

// 128 random bits as 32 hexadecimal digits.
std::string RandomName();

}  // namespace statehouse::cli
