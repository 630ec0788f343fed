// The prompt of a request as token ids: text, ids, chat messages or a gap to fill. Thread-safety: functions without
// state.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/served_model.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse {

// Appends the ids of the request's input to `ids`. Errors as ToRequest().
absl::Status ConvertPrompt(const v1::GenerateRequest& request, const ServedModel& model, std::vector<int32_t>* ids);

// The same for input that follows on the tokens of a session. Text gets the tokenizer's own start tokens only where
// `held` is empty, unless add_special_tokens is set. REQUIRES: the request has an input, and no suffix.
absl::Status ConvertContinuation(const v1::GenerateRequest& request, const ServedModel& model,
                                 std::span<const int32_t> held, std::vector<int32_t>* ids);

// Appends the ids of `chat`, ready for the assistant's next token (or for the rest of a last assistant message), as
// they follow on `held`.
absl::Status ConvertChat(const v1::Chat& chat, const ServedModel& model, std::span<const int32_t> held,
                         std::vector<int32_t>* ids);

// Appends the ids of `text`. FAILED_PRECONDITION without a tokenizer.
absl::Status ConvertText(const std::string& text, bool add_special_tokens, bool parse_special_tokens,
                         const ServedModel& model, std::vector<int32_t>* ids);

}  // namespace statehouse
