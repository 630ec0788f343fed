// How in-process commands write sizes. Thread-safety: functions without state.
#pragma once

#include <cstdint>
#include <string>

namespace statehouse {

// "12.6 MB", "3.03 GFLOP": `value` in steps of 1000, three significant digits, with `unit` behind the prefix.
std::string WithPrefix(double value, const char* unit);
// "4.2 k", "1 M": tokens as people say them; exact below 10 000.
std::string Tokens(int64_t tokens);

}  // namespace statehouse
