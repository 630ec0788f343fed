// The prompt of a request as token ids: text, ids, chat messages or a gap to fill. Thread-safety: functions without
// state.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/served_model.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse {

// Appends the ids of the request's input to `ids`. Errors as ToRequest().
absl::Status ConvertPrompt(const v1::GenerateRequest& request, const ServedModel& model, std::vector<int32_t>* ids);

// Appends the ids of `chat`, ready for the assistant's next token (or for the rest of a last assistant message).
absl::Status ConvertChat(const v1::Chat& chat, const ServedModel& model, std::vector<int32_t>* ids);

// Appends the ids of `text`. FAILED_PRECONDITION without a tokenizer.
absl::Status ConvertText(const std::string& text, bool add_special_tokens, bool parse_special_tokens,
                         const ServedModel& model, std::vector<int32_t>* ids);

}  // namespace statehouse
