// Errors that tell a client what to change, as absl::Status with machine-readable details.
//
// server/ turns the details into google.rpc.BadRequest and RetryInfo; the message alone is enough for a person.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace statehouse {

// INVALID_ARGUMENT: "<field>: <value> is not allowed; expected <expected>", with the field as a detail.
absl::Status InvalidField(std::string_view field, std::string_view value, std::string_view expected);
// The same in other words: "<field>: <what>".
absl::Status BadField(std::string_view field, std::string_view what);
// RESOURCE_EXHAUSTED with a retry hint: "<message>; retry in <retry_after>".
absl::Status Overloaded(std::string_view message, absl::Duration retry_after);
// ABORTED in the same way: somebody else is at it, and is expected to be through by then.
absl::Status Busy(std::string_view message, absl::Duration retry_after);
// The same status with a retry hint beside what it says.
absl::Status WithRetryAfter(absl::Status status, absl::Duration retry_after);

std::optional<std::string> FieldOf(const absl::Status& status);
std::optional<absl::Duration> RetryAfterOf(const absl::Status& status);

}  // namespace statehouse
