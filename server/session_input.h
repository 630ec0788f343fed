// What a request asks of a session: its checks, its input as token ids, and a digest that says whether another request
// asks for the same. Thread-safety: functions without state.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/served_model.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse {

// INVALID_ARGUMENT names the field that cannot stand beside `session`, or is out of its range.
absl::Status CheckSessionUse(const v1::GenerateRequest& request);

// The ids of the request's input as they follow on `held`: messages close the last answer if it was cut off; text gets
// the tokenizer's start tokens only where the session begins, unless add_special_tokens is set. Empty without an input.
// Errors as ToRequest().
absl::StatusOr<std::vector<int32_t>> SessionInput(const v1::GenerateRequest& request, const ServedModel& model,
                                                  std::span<const int32_t> held);

// Equal for requests that ask for the same answer: input, sampling, stop conditions. 32 hexadecimal digits.
std::string RequestDigest(const v1::GenerateRequest& request);

}  // namespace statehouse
