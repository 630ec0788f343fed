#include "engine/admission.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/scheduler.h"

namespace statehouse {
namespace {

constexpr int64_t kDefaultSlots = 16;
constexpr int64_t kDefaultMaxTokens = 1024;
constexpr int64_t kMostRows = 65536;
constexpr int64_t kMostDeviceSlots = 256;  // taken without being asked for

absl::Status CheckOption(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidField(name, absl::StrCat(value), absl::StrCat("a number in [", low, ", ", high, "]"));
}

absl::StatusOr<int64_t> ResolveSlots(const EngineOptions& options, int64_t slot_bytes) {
  if (options.state_memory_bytes == 0) return options.max_num_seqs > 0 ? options.max_num_seqs : kDefaultSlots;
  const int64_t fitting = options.state_memory_bytes / slot_bytes;
  if (fitting == 0) {
    return InvalidField("--state-memory", absl::StrCat(options.state_memory_bytes, " bytes"),
                        absl::StrCat("at least the ", slot_bytes, " bytes of one slot"));
  }
  // Each decoding sequence needs a row of every step, so more slots than rows would only wait.
  if (options.max_num_seqs == 0) return std::min(fitting, options.max_num_batched_tokens);
  if (options.max_num_seqs > fitting) {
    return InvalidField("--max-num-seqs", absl::StrCat(options.max_num_seqs),
                        absl::StrCat("at most ", fitting, ": --state-memory is ", options.state_memory_bytes,
                                     " bytes, and a slot takes ", slot_bytes));
  }
  return options.max_num_seqs;
}

bool IsTailOnly(const kernels::RetentionLayout& layout) { return !layout.has_state(); }

}  // namespace

absl::Status CheckOptions(const EngineOptions& options) {
  constexpr int64_t kMany = int64_t{1} << 53;
  for (const absl::Status& status : {
           CheckOption("--state-memory", options.state_memory_bytes, 0, kMany),
           CheckOption("--max-num-seqs", options.max_num_seqs, 0, kMostRows),
           CheckOption("--max-num-batched-tokens", options.max_num_batched_tokens, 1, kMostRows),
           CheckOption("--max-num-queued-reqs", options.max_num_queued_reqs, 1, kMany),
           CheckOption("--max-num-queued-tokens", options.max_num_queued_tokens, 1, kMany),
           CheckOption("--max-requests-per-principal", options.max_requests_per_principal, 0, kMany),
           CheckOption("--max-prompt-tokens", options.max_prompt_tokens, 0, kMany),
           CheckOption("--max-output-tokens", options.max_output_tokens, 0, kMany),
           CheckOption("--min-priority", options.min_priority, kLowestPriority, kHighestPriority),
           CheckOption("event_capacity", options.event_capacity, 1, 1 << 20),
       }) {
    if (!status.ok()) return status;
  }
  if (options.slow_reader_timeout <= absl::ZeroDuration()) {
    return InvalidField("--slow-reader-timeout", absl::FormatDuration(options.slow_reader_timeout), "more than 0");
  }
  return absl::OkStatus();
}

absl::StatusOr<EngineOptions> SizeForDevice(const Model& model, const EngineOptions& options, int64_t slot_bytes) {
  EngineOptions sized = options;
  if (options.state_memory_bytes != 0 || options.max_num_seqs != 0) return sized;
  const absl::StatusOr<std::optional<int64_t>> asked = model.BytesForSlots(
      std::max(options.max_num_batched_tokens, kMostDeviceSlots), kMostDeviceSlots + kPromptLogitRows);
  if (!asked.ok()) return asked.status();
  const std::optional<int64_t> free_bytes = *asked;
  if (!free_bytes.has_value()) return sized;
  if (*free_bytes < slot_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("state memory: one sequence needs ", slot_bytes, " bytes, and beside weights and step buffers ",
                     std::max<int64_t>(0, *free_bytes), " bytes of the device are left"));
  }
  sized.state_memory_bytes = std::min(*free_bytes / slot_bytes, kMostDeviceSlots) * slot_bytes;
  return sized;
}

absl::StatusOr<EngineOptions> ResolveOptions(const EngineOptions& options, int64_t slot_bytes) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  const absl::StatusOr<int64_t> slots = ResolveSlots(options, slot_bytes);
  if (!slots.ok()) return slots.status();
  int64_t state_bytes = 0;
  if (__builtin_mul_overflow(*slots, slot_bytes, &state_bytes)) {
    return absl::ResourceExhaustedError(absl::StrCat("state memory: ", *slots, " slots of ", slot_bytes,
                                                     " bytes are more than any machine has; lower --max-num-seqs"));
  }
  EngineOptions resolved = options;
  resolved.max_num_seqs = *slots;
  resolved.state_memory_bytes = state_bytes;
  resolved.max_num_batched_tokens = std::max(options.max_num_batched_tokens, *slots);
  if (resolved.clock == nullptr) resolved.clock = Clock::Real();
  return resolved;
}

absl::Status CheckLimits(const Request& request, const EngineOptions& options, const kernels::RetentionLayout& layout) {
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t max_tokens = request.stop.max_tokens;
  if (options.max_prompt_tokens > 0 && prompt > options.max_prompt_tokens) {
    return InvalidField("prompt", absl::StrCat(prompt, " tokens"),
                        absl::StrCat("at most ", options.max_prompt_tokens, " tokens (--max-prompt-tokens)"));
  }
  if (prompt > options.max_num_queued_tokens) {
    return InvalidField("prompt", absl::StrCat(prompt, " tokens"),
                        absl::StrCat("at most ", options.max_num_queued_tokens,
                                     " tokens, which is all that may wait (--max-num-queued-tokens)"));
  }
  if (options.max_output_tokens > 0 && max_tokens > options.max_output_tokens) {
    return InvalidField("stop.max_tokens", absl::StrCat(max_tokens),
                        absl::StrCat("at most ", options.max_output_tokens, " (--max-output-tokens)"));
  }
  if (request.priority < options.min_priority) {
    return InvalidField("priority", absl::StrCat(request.priority),
                        absl::StrCat("a number in [", options.min_priority, ", ", kHighestPriority,
                                     "]: this server's --min-priority is ", options.min_priority));
  }
  const int64_t resolved = ResolveMaxTokens(request, options, layout);
  if (request.stop.min_tokens > resolved) {
    return InvalidField("stop.min_tokens", absl::StrCat(request.stop.min_tokens),
                        absl::StrCat("at most the ", resolved, " tokens that the output may have"));
  }
  if (!IsTailOnly(layout)) return absl::OkStatus();
  const int64_t most = layout.shape().max_tail_tokens;
  if (prompt + std::max<int64_t>(1, max_tokens) <= most) return absl::OkStatus();
  const bool prompt_alone = prompt + 1 > most;
  return InvalidField(prompt_alone ? "prompt" : "stop.max_tokens",
                      prompt_alone ? absl::StrCat(prompt, " tokens") : absl::StrCat(max_tokens),
                      absl::StrCat("prompt + max_tokens <= ", most, ", and ", prompt, " + ",
                                   std::max<int64_t>(1, max_tokens), " = ", prompt + std::max<int64_t>(1, max_tokens),
                                   ": this model has no state form, so a sequence ends at --max-tail-tokens"));
}

absl::Status CheckMinTokens(const Request& request, const std::vector<int32_t>& eos_ids, int64_t vocab_size) {
  if (request.stop.min_tokens == 0) return absl::OkStatus();
  const std::vector<int32_t>& banned = request.sampling.banned_token_ids;
  const std::vector<int32_t>& allowed = request.sampling.allowed_token_ids;
  std::vector<int32_t> excluded = EndTokens(request.stop, eos_ids);
  excluded.insert(excluded.end(), banned.begin(), banned.end());
  std::sort(excluded.begin(), excluded.end());
  excluded.erase(std::unique(excluded.begin(), excluded.end()), excluded.end());
  const auto is_excluded = [&excluded](int32_t id) { return std::binary_search(excluded.begin(), excluded.end(), id); };
  const bool nothing_left = allowed.empty() ? static_cast<int64_t>(excluded.size()) >= vocab_size
                                            : std::all_of(allowed.begin(), allowed.end(), is_excluded);
  if (!nothing_left) return absl::OkStatus();
  return InvalidField(
      "stop.min_tokens", absl::StrCat(request.stop.min_tokens),
      "0, unless sampling.allowed_token_ids and sampling.banned_token_ids leave a token that is no end "
      "token (EOS without stop.ignore_eos, stop.token_ids): end tokens are not chosen before min_tokens");
}

int64_t ExpectedAnswer(const Request& request) {
  return request.stop.max_tokens > 0 ? std::min(request.stop.max_tokens, kDefaultMaxTokens) : kDefaultMaxTokens;
}

int64_t ResolveMaxTokens(const Request& request, const EngineOptions& options, const kernels::RetentionLayout& layout) {
  if (request.stop.max_tokens > 0) return request.stop.max_tokens;
  int64_t max_tokens = options.max_output_tokens > 0 ? options.max_output_tokens : kDefaultMaxTokens;
  if (IsTailOnly(layout)) {
    const int64_t prompt = static_cast<int64_t>(request.prompt.size());
    max_tokens = std::min(max_tokens, std::max<int64_t>(1, layout.shape().max_tail_tokens - prompt));
  }
  return max_tokens;
}

}  // namespace statehouse
