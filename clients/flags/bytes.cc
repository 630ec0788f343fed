#include "clients/flags/bytes.h"

#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/ascii.h"
#include "clients/flags/numbers.h"

namespace statehouse {
namespace {

constexpr char kExpected[] = "bytes such as 65536, 64MiB, 1.5GiB or 80GB, up to 8EiB less one";

// What one of `unit` is in bytes; 0: there is no such unit.
int64_t BytesOf(std::string_view unit) {
  const std::string name = absl::AsciiStrToLower(std::string(unit));
  if (name.empty() || name == "b") return 1;
  constexpr std::string_view kPrefixes = "kmgtpe";
  const size_t power = kPrefixes.find(name.front());
  const std::string rest = name.substr(1);
  if (power == std::string_view::npos || !(rest.empty() || rest == "b" || rest == "ib")) return 0;
  int64_t bytes = 1;
  for (size_t i = 0; i <= power; ++i) bytes *= rest == "ib" ? 1024 : 1000;
  return bytes;
}

}  // namespace

absl::StatusOr<int64_t> ParseBytes(std::string_view text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  std::string_view unit = text.substr(digits);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  const int64_t scale = BytesOf(unit);
  const std::string_view amount = text.substr(0, digits);
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  if (scale == 0) return NotAllowed(text, kExpected);
  if (amount.find('.') == std::string_view::npos) {
    const absl::StatusOr<int64_t> whole = ParseNumber<int64_t>(amount, {.least = 0});
    if (!whole.ok() || *whole > kMost / scale) return NotAllowed(text, kExpected);
    return *whole * scale;
  }
  const absl::StatusOr<double> number = ParseNumber<double>(amount, {.least = 0});
  // As a double 2^63 is the first amount that does not fit.
  if (!number.ok() || *number * static_cast<double>(scale) >= std::ldexp(1.0, 63)) return NotAllowed(text, kExpected);
  return static_cast<int64_t>(*number * static_cast<double>(scale));
}

}  // namespace statehouse
