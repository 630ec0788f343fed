#include "engine/errors.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace statehouse {
namespace {

// Payload type URLs: private to the process, so they need no protobuf behind them.
constexpr char kFieldUrl[] = "statehouse/field";
constexpr char kRetryUrl[] = "statehouse/retry_after_ms";

}  // namespace

absl::Status InvalidField(std::string_view field, std::string_view value, std::string_view expected) {
  return BadField(field, absl::StrCat(std::string(value), " is not allowed; expected ", std::string(expected)));
}

absl::Status BadField(std::string_view field, std::string_view what) {
  const std::string name(field);
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(name, ": ", std::string(what)));
  status.SetPayload(kFieldUrl, absl::Cord(name));
  return status;
}

absl::Status Overloaded(std::string_view message, absl::Duration retry_after) {
  return WithRetryAfter(absl::ResourceExhaustedError(
                            absl::StrCat(std::string(message), "; retry in ", absl::FormatDuration(retry_after))),
                        retry_after);
}

absl::Status Busy(std::string_view message, absl::Duration retry_after) {
  return WithRetryAfter(
      absl::AbortedError(absl::StrCat(std::string(message), "; retry in ", absl::FormatDuration(retry_after))),
      retry_after);
}

absl::Status WithRetryAfter(absl::Status status, absl::Duration retry_after) {
  status.SetPayload(kRetryUrl, absl::Cord(absl::StrCat(absl::ToInt64Milliseconds(retry_after))));
  return status;
}

std::optional<std::string> FieldOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kFieldUrl);
  if (!payload.has_value()) return std::nullopt;
  return std::string(*payload);
}

std::optional<absl::Duration> RetryAfterOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kRetryUrl);
  int64_t milliseconds = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &milliseconds)) return std::nullopt;
  return absl::Milliseconds(milliseconds);
}

}  // namespace statehouse
