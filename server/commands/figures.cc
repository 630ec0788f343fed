#include "server/commands/figures.h"

#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace statehouse {

std::string WithPrefix(double value, const char* unit) {
  static constexpr std::array<const char*, 6> kPrefixes = {"", "k", "M", "G", "T", "P"};
  size_t prefix = 0;
  for (; std::abs(value) >= 999.5 && prefix + 1 < kPrefixes.size(); ++prefix) value /= 1000;
  const bool is_whole = prefix == 0 && value == std::floor(value);
  const int digits = is_whole || std::abs(value) >= 99.95 ? 0 : std::abs(value) >= 9.995 ? 1 : 2;
  return absl::StrFormat("%.*f %s%s", digits, value, kPrefixes[prefix], unit);
}

std::string Tokens(int64_t tokens) {
  if (tokens < 10'000) return absl::StrCat(tokens);
  if (tokens < 1'000'000) return absl::StrFormat("%.4g k", static_cast<double>(tokens) / 1e3);
  return absl::StrFormat("%.4g M", static_cast<double>(tokens) / 1e6);
}

}  // namespace statehouse
