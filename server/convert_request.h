// From the wire to the engine: GenerateRequest to Request, chat messages and text to token ids.
//
// Every field is checked against the range that its comment in the proto gives (by the engine's ValidateParameters());
// errors name the field by its path in the proto ("sampling.top_p") and say what is allowed. Thread-safety: functions
// without state.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/request.h"
#include "server/served_model.h"
#include "statehouse/v1/generation.pb.h"
#include "statehouse/v1/tokenizer.pb.h"

namespace statehouse {

// All but id, principal and deadline, which come with the call. INVALID_ARGUMENT with the field's path;
// FAILED_PRECONDITION (no tokenizer, chat template or fill-in-the-middle tokens) says how to go on.
absl::StatusOr<std::unique_ptr<Request>> ToRequest(const v1::GenerateRequest& request, const ServedModel& model);
// The same without the prompt.
absl::StatusOr<std::unique_ptr<Request>> ToParameters(const v1::GenerateRequest& request, const ServedModel& model);

// The ids of a TokenizeRequest's input. Errors as above.
absl::StatusOr<std::vector<int32_t>> ToTokenIds(const v1::TokenizeRequest& request, const ServedModel& model);

// INVALID_ARGUMENT names the first id outside [0, vocab_size) as "<field>[i]".
absl::Status CheckTokenIds(std::string_view field, const google::protobuf::RepeatedField<int32_t>& ids,
                           int64_t vocab_size);

}  // namespace statehouse
