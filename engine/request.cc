#include "engine/request.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"

namespace statehouse {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 53;  // leaves room to add a prompt; also exact as a JSON number
constexpr size_t kMaxStopStrings = 16;
constexpr size_t kMaxStopBytes = 256;
constexpr size_t kMaxIdBytes = 256;

struct Range {
  double low;
  double high;
  bool low_is_open = false;
};

// Written so that NaN is out of every range.
absl::Status CheckRange(std::string_view field, double value, Range range) {
  const bool above = range.low_is_open ? value > range.low : value >= range.low;
  if (above && value <= range.high) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(value),
                      absl::StrCat("a number in ", range.low_is_open ? "(" : "[", range.low, ", ", range.high, "]"));
}

absl::Status CheckIds(std::string_view field, const std::vector<int32_t>& ids, int64_t vocab_size) {
  for (size_t idx = 0; idx < ids.size(); ++idx) {
    if (ids[idx] < 0 || ids[idx] >= vocab_size) {
      return InvalidField(absl::StrCat(std::string(field), "[", idx, "]"), absl::StrCat(ids[idx]),
                          absl::StrCat("a token id in [0, ", vocab_size, ")"));
    }
  }
  return absl::OkStatus();
}

// A set of ids, which the engine walks for every token.
absl::Status CheckIdSet(std::string_view field, const std::vector<int32_t>& ids, int64_t vocab_size) {
  if (static_cast<int64_t>(ids.size()) <= vocab_size) return CheckIds(field, ids, vocab_size);
  return InvalidField(field, absl::StrCat(ids.size(), " ids"),
                      absl::StrCat("at most ", vocab_size, ", the size of the vocabulary"));
}

// At least one token must be left to choose from.
absl::Status CheckSomethingAllowed(const SamplingParams& sampling, int64_t vocab_size) {
  if (sampling.banned_token_ids.empty()) return absl::OkStatus();
  std::vector<int32_t> banned = sampling.banned_token_ids;
  std::sort(banned.begin(), banned.end());
  banned.erase(std::unique(banned.begin(), banned.end()), banned.end());
  const auto is_banned = [&banned](int32_t id) { return std::binary_search(banned.begin(), banned.end(), id); };
  const std::vector<int32_t>& allowed = sampling.allowed_token_ids;
  const bool nothing_left = allowed.empty() ? static_cast<int64_t>(banned.size()) == vocab_size
                                            : std::all_of(allowed.begin(), allowed.end(), is_banned);
  if (!nothing_left) return absl::OkStatus();
  return InvalidField("sampling.banned_token_ids", absl::StrCat(banned.size(), " ids"),
                      "at least one allowed token id that is not banned");
}

absl::Status CheckSampling(const SamplingParams& sampling, int64_t vocab_size) {
  for (const absl::Status& status : {
           CheckRange("sampling.temperature", sampling.temperature, {0, 100}),
           CheckRange("sampling.top_p", sampling.top_p, {0, 1, true}),
           CheckRange("sampling.min_p", sampling.min_p, {0, 1}),
           CheckRange("sampling.typical_p", sampling.typical_p, {0, 1, true}),
           CheckRange("sampling.repetition_penalty", sampling.repetition_penalty, {0, 10, true}),
           CheckRange("sampling.presence_penalty", sampling.presence_penalty, {-2, 2}),
           CheckRange("sampling.frequency_penalty", sampling.frequency_penalty, {-2, 2}),
           CheckIdSet("sampling.allowed_token_ids", sampling.allowed_token_ids, vocab_size),
           CheckIdSet("sampling.banned_token_ids", sampling.banned_token_ids, vocab_size),
           CheckSomethingAllowed(sampling, vocab_size),
       }) {
    if (!status.ok()) return status;
  }
  if (sampling.top_k < 0) {
    return InvalidField("sampling.top_k", absl::StrCat(sampling.top_k), "a number >= 1, or 0 for no limit");
  }
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      return InvalidField(absl::StrCat("sampling.logit_bias[", id, "]"), absl::StrCat(bias),
                          absl::StrCat("a bias for a token id in [0, ", vocab_size, ")"));
    }
    if (!(bias >= -100 && bias <= 100)) {
      return InvalidField(absl::StrCat("sampling.logit_bias[", id, "]"), absl::StrCat(bias), "a number in [-100, 100]");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStop(const StopConditions& stop, int64_t vocab_size) {
  if (stop.max_tokens < 0 || stop.max_tokens > kMaxTokens) {
    return InvalidField("stop.max_tokens", absl::StrCat(stop.max_tokens),
                        absl::StrCat("a number in [1, ", kMaxTokens, "], or none for the default"));
  }
  if (stop.min_tokens < 0 || stop.min_tokens > kMaxTokens) {
    return InvalidField("stop.min_tokens", absl::StrCat(stop.min_tokens),
                        absl::StrCat("a number in [0, ", kMaxTokens, "]"));
  }
  if (stop.max_tokens > 0 && stop.min_tokens > stop.max_tokens) {
    return InvalidField("stop.min_tokens", absl::StrCat(stop.min_tokens),
                        absl::StrCat("at most stop.max_tokens, which is ", stop.max_tokens));
  }
  if (stop.stop.size() > kMaxStopStrings) {
    return InvalidField("stop.strings", absl::StrCat(stop.stop.size(), " strings"),
                        absl::StrCat("at most ", kMaxStopStrings));
  }
  for (size_t idx = 0; idx < stop.stop.size(); ++idx) {
    const size_t size = stop.stop[idx].size();
    if (size < 1 || size > kMaxStopBytes) {
      return InvalidField(absl::StrCat("stop.strings[", idx, "]"), absl::StrCat("a string of ", size, " bytes"),
                          absl::StrCat("1 to ", kMaxStopBytes, " bytes"));
    }
  }
  return CheckIdSet("stop.token_ids", stop.stop_token_ids, vocab_size);
}

absl::Status CheckFrom(const Request& request) {
  if (request.from == nullptr) return absl::OkStatus();
  const int64_t position = request.from->position();
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  if (position > prompt) {
    return InvalidField("from", absl::StrCat("a snapshot of ", position, " tokens"),
                        absl::StrCat("at most the ", prompt, " tokens of the prompt"));
  }
  const std::span<const int32_t> tokens = request.from->tokens();
  const auto differ = std::mismatch(tokens.begin(), tokens.end(), request.prompt.begin());
  if (differ.first != tokens.end()) {
    return InvalidField("from",
                        absl::StrCat("a snapshot whose token ", differ.first - tokens.begin(), " is ", *differ.first),
                        absl::StrCat("the prompt's, which is ", *differ.second));
  }
  if (position == prompt && request.from->logits().empty()) {
    return InvalidField("from", "a snapshot of the whole prompt without logits", "logits, or a shorter snapshot");
  }
  if (request.num_prompt_logprobs >= 0) {
    return InvalidField("prompt_logprobs", absl::StrCat(request.num_prompt_logprobs),
                        "none with a snapshot: the prompt is not computed");
  }
  return absl::OkStatus();
}

absl::Status CheckSnapshots(const Request& request) {
  int64_t last = request.from == nullptr ? 0 : request.from->position();
  for (size_t idx = 0; idx < request.snapshots.size(); ++idx) {
    const SnapshotOrder& order = request.snapshots[idx];
    const std::string field = absl::StrCat("snapshots[", idx, "]");
    if (order.into == nullptr) return InvalidField(field, "no draft", "a reserved draft");
    if (order.position == SnapshotOrder::kAtEnd) {
      if (idx + 1 == request.snapshots.size() && request.n == 1) return absl::OkStatus();
      return InvalidField(field, "the request's end", "it last, and one output");
    }
    if (order.position <= last || order.position > static_cast<int64_t>(request.prompt.size())) {
      return InvalidField(field, absl::StrCat("position ", order.position),
                          absl::StrCat("a position in [", last + 1, ", ", request.prompt.size(), "], ascending"));
    }
    last = order.position;
  }
  return absl::OkStatus();
}

absl::Status CheckLogprobs(std::string_view field, int32_t count) {
  if (count >= -1 && count <= kMaxLogprobs) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(count), absl::StrCat("a number in [0, ", kMaxLogprobs, "]"));
}

}  // namespace

std::vector<int32_t> EndTokens(const StopConditions& stop, const std::vector<int32_t>& eos_ids) {
  std::vector<int32_t> ids = stop.stop_token_ids;
  if (!stop.ignore_eos) ids.insert(ids.end(), eos_ids.begin(), eos_ids.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

absl::Status ValidateRequest(const Request& request, int64_t vocab_size) {
  if (request.id.size() > kMaxIdBytes) {
    return InvalidField("request_id", absl::StrCat("an id of ", request.id.size(), " bytes"),
                        absl::StrCat("at most ", kMaxIdBytes, " bytes"));
  }
  if (request.prompt.empty()) return InvalidField("prompt", "an empty prompt", "at least one token");
  if (absl::Status status = CheckIds("prompt", request.prompt, vocab_size); !status.ok()) return status;
  return ValidateParameters(request, vocab_size);
}

absl::Status ValidateParameters(const Request& request, int64_t vocab_size) {
  if (request.n < 1 || request.n > kMaxOutputs) {
    return InvalidField("n", absl::StrCat(request.n), absl::StrCat("a number in [1, ", kMaxOutputs, "]"));
  }
  if (request.priority < kLowestPriority || request.priority > kHighestPriority) {
    return InvalidField("priority", absl::StrCat(request.priority),
                        absl::StrCat("a number in [", kLowestPriority, ", ", kHighestPriority, "]"));
  }
  for (const absl::Status& status : {
           CheckSampling(request.sampling, vocab_size),
           CheckStop(request.stop, vocab_size),
           CheckLogprobs("logprobs", request.num_logprobs),
           CheckLogprobs("prompt_logprobs", request.num_prompt_logprobs),
           CheckFrom(request),
           CheckSnapshots(request),
       }) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace statehouse
