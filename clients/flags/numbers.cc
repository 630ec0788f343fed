#include "clients/flags/numbers.h"

#include <charconv>
#include <cmath>
#include <system_error>
#include <type_traits>

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

template <typename T>
std::string Text(T number) {
  if constexpr (std::is_floating_point_v<T>) {
    constexpr double kDigits = 1e15;
    if (std::abs(number) < kDigits && number == std::floor(number)) return absl::StrCat(static_cast<int64_t>(number));
  }
  return absl::StrCat(number);
}

template <typename T>
std::string Expected(const Bounds<T>& bounds, bool overflowed) {
  std::string range = BoundsText(bounds);
  // What does not fit the type is told its ends: "0 or more" would not explain it.
  if (overflowed && std::is_integral_v<T>) range = absl::StrCat(bounds.least, " to ", bounds.most);
  const char* const kind = std::is_integral_v<T> ? "a whole number" : "a number";
  return absl::StrCat(kind, range.empty() ? "" : ", ", range);
}

}  // namespace

absl::Status NotAllowed(std::string_view value, std::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", std::string(value), "\" is not allowed; expected ", std::string(expected)));
}

template <typename T>
std::string BoundsText(const Bounds<T>& bounds) {
  const bool has_least = std::is_unsigned_v<T> || bounds.least != std::numeric_limits<T>::lowest();
  const bool has_most = bounds.most != std::numeric_limits<T>::max();
  if (has_least && has_most) {
    return absl::StrCat(bounds.above ? "above " : "", Text(bounds.least), " to ", Text(bounds.most));
  }
  if (has_least) return bounds.above ? "above " + Text(bounds.least) : Text(bounds.least) + " or more";
  return has_most ? "at most " + Text(bounds.most) : "";
}

template <typename T>
absl::StatusOr<T> ParseNumber(std::string_view text, const Bounds<T>& bounds) {
  std::string_view digits = text;
  if (digits.size() > 1 && digits.front() == '+' && digits[1] != '-') digits.remove_prefix(1);
  T number = 0;
  const char* const end = digits.data() + digits.size();
  const std::from_chars_result read = std::from_chars(digits.data(), end, number);
  const bool overflowed = read.ec == std::errc::result_out_of_range && read.ptr == end;
  bool is_allowed = read.ec == std::errc() && read.ptr == end;
  if constexpr (std::is_floating_point_v<T>) {
    if (is_allowed && bounds.infinite && std::isinf(number) && number > 0) return number;
    is_allowed = is_allowed && std::isfinite(number);
  }
  is_allowed = is_allowed && number <= bounds.most && (bounds.above ? number > bounds.least : number >= bounds.least);
  if (!is_allowed) return NotAllowed(text, Expected(bounds, overflowed));
  return number;
}

template std::string BoundsText(const Bounds<int32_t>&);
template std::string BoundsText(const Bounds<int64_t>&);
template std::string BoundsText(const Bounds<uint64_t>&);
template std::string BoundsText(const Bounds<double>&);
template absl::StatusOr<int32_t> ParseNumber(std::string_view, const Bounds<int32_t>&);
template absl::StatusOr<int64_t> ParseNumber(std::string_view, const Bounds<int64_t>&);
template absl::StatusOr<uint64_t> ParseNumber(std::string_view, const Bounds<uint64_t>&);
template absl::StatusOr<double> ParseNumber(std::string_view, const Bounds<double>&);

}  // namespace statehouse
