// What can be said of a request before it waits: the operator's caps, and whether it can ever fit. Pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "kernels/power_retention/layout.h"

namespace statehouse {

// What can be said of them before a model is loaded: INVALID_ARGUMENT names the flag.
absl::Status CheckOptions(const EngineOptions& options);
// Where slots are in a device's memory and the options do not say how many: as many as its free memory holds, up to
// 256. RESOURCE_EXHAUSTED says how many bytes a slot needs and how many are left.
absl::StatusOr<EngineOptions> SizeForDevice(const Model& model, const EngineOptions& options, int64_t slot_bytes);

// Fills in what the options leave open (slot count, bytes, clock) and checks the rest. `slot_bytes` is one slot's size.
absl::StatusOr<EngineOptions> ResolveOptions(const EngineOptions& options, int64_t slot_bytes);

// Refuses what is over a cap, or can never run here: INVALID_ARGUMENT names the field and shows the arithmetic.
absl::Status CheckLimits(const Request& request, const EngineOptions& options, const kernels::RetentionLayout& layout);
// Refuses min_tokens where only end tokens could be chosen: before that many, they may not be. INVALID_ARGUMENT names
// the fields. REQUIRES: ids within the vocabulary.
absl::Status CheckMinTokens(const Request& request, const std::vector<int32_t>& eos_ids, int64_t vocab_size);
// Tokens of the answer that are counted on where something is prepared for its end: max_tokens, or 1024 if that is
// more or not set, since few use all that they may.
int64_t ExpectedAnswer(const Request& request);
// max_tokens as it will hold: the request's, else the operator's cap, else 1024 (less where the tail is shorter).
int64_t ResolveMaxTokens(const Request& request, const EngineOptions& options, const kernels::RetentionLayout& layout);

}  // namespace statehouse
