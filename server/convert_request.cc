#include "server/convert_request.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "server/convert_prompt.h"
#include "server/field_checks.h"

namespace statehouse {
namespace {

constexpr int kMaxStopStrings = 16;
constexpr int kMaxStopStringBytes = 256;

// Takes `field` of the message if it is there and in its range; leaves *out (the default) otherwise.
#define STATEHOUSE_TAKE(message, name, prefix, check, out)                             \
  if ((message).has_##name()) {                                                        \
    if (absl::Status status = (check)(prefix #name, (message).name()); !status.ok()) { \
      return status;                                                                   \
    }                                                                                  \
    *(out) = (message).name();                                                         \
  }

void TakeDefaults(const GenerationDefaults& defaults, SamplingParams* out) {
  out->temperature = defaults.temperature.value_or(out->temperature);
  out->top_p = defaults.top_p.value_or(out->top_p);
  out->top_k = defaults.top_k.value_or(out->top_k);
  out->min_p = defaults.min_p.value_or(out->min_p);
  out->typical_p = defaults.typical_p.value_or(out->typical_p);
  out->repetition_penalty = defaults.repetition_penalty.value_or(out->repetition_penalty);
  if (defaults.greedy) out->temperature = 0;
}

// A set of ids, sorted. The engine walks it for every token, so that it may not be longer than the vocabulary.
absl::Status ConvertIds(std::string_view field, const google::protobuf::RepeatedField<int32_t>& ids, int64_t vocab_size,
                        std::vector<int32_t>* out) {
  if (ids.size() > vocab_size) {
    return InvalidField(field, absl::StrCat(ids.size(), " ids"),
                        absl::StrCat("at most ", vocab_size, ", the size of the vocabulary"));
  }
  if (absl::Status status = CheckTokenIds(field, ids, vocab_size); !status.ok()) return status;
  out->assign(ids.begin(), ids.end());
  std::sort(out->begin(), out->end());
  out->erase(std::unique(out->begin(), out->end()), out->end());
  return absl::OkStatus();
}

absl::Status ConvertSampling(const v1::Sampling& sampling, const ServedModel& model, SamplingParams* out) {
  TakeDefaults(model.defaults, out);
  STATEHOUSE_TAKE(sampling, temperature, "sampling.", InRange(0.0, 100.0), &out->temperature);
  STATEHOUSE_TAKE(sampling, top_k, "sampling.", AtLeast(int64_t{0}), &out->top_k);
  STATEHOUSE_TAKE(sampling, top_p, "sampling.", InRangeAbove(0.0, 1.0), &out->top_p);
  STATEHOUSE_TAKE(sampling, min_p, "sampling.", InRange(0.0, 1.0), &out->min_p);
  STATEHOUSE_TAKE(sampling, typical_p, "sampling.", InRangeAbove(0.0, 1.0), &out->typical_p);
  STATEHOUSE_TAKE(sampling, repetition_penalty, "sampling.", InRangeAbove(0.0, 10.0), &out->repetition_penalty);
  STATEHOUSE_TAKE(sampling, presence_penalty, "sampling.", InRange(-2.0, 2.0), &out->presence_penalty);
  STATEHOUSE_TAKE(sampling, frequency_penalty, "sampling.", InRange(-2.0, 2.0), &out->frequency_penalty);
  for (const auto& [id, bias] : sampling.logit_bias()) {
    const std::string field = absl::StrCat("sampling.logit_bias[", id, "]");
    if (absl::Status status = CheckTokenId(field, id, model.vocab_size); !status.ok()) return status;
    if (absl::Status status = InRange(-100.0, 100.0)(field, bias); !status.ok()) return status;
    out->logit_bias.emplace_back(id, bias);
  }
  std::sort(out->logit_bias.begin(), out->logit_bias.end());  // a map has no order
  if (absl::Status status = ConvertIds("sampling.allowed_token_ids", sampling.allowed_token_ids(), model.vocab_size,
                                       &out->allowed_token_ids);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = ConvertIds("sampling.banned_token_ids", sampling.banned_token_ids(), model.vocab_size,
                                       &out->banned_token_ids);
      !status.ok()) {
    return status;
  }
  if (sampling.has_seed()) out->seed = sampling.seed();
  return absl::OkStatus();
}

absl::Status ConvertStopStrings(const v1::Stop& stop, const ServedModel& model, StopConditions* out) {
  if (stop.strings_size() > kMaxStopStrings) {
    return InvalidField("stop.strings", absl::StrCat(stop.strings_size(), " strings"),
                        absl::StrCat("at most ", kMaxStopStrings));
  }
  for (int i = 0; i < stop.strings_size(); ++i) {
    const std::string& text = stop.strings(i);
    const std::string field = absl::StrCat("stop.strings[", i, "]");
    if (text.empty() || text.size() > kMaxStopStringBytes) {
      return InvalidField(field, absl::StrCat("a string of ", text.size(), " bytes"),
                          absl::StrCat("1 to ", kMaxStopStringBytes, " bytes"));
    }
    if (absl::Status status = CheckUtf8(field, text); !status.ok()) return status;
    out->stop.push_back(text);
  }
  if (!out->stop.empty() && model.tokenizer == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("stop.strings: this model has no tokenizer (",
                                                      model.why_no_tokenizer,
                                                      "), so there is no text to search; use stop.token_ids"));
  }
  return absl::OkStatus();
}

absl::Status ConvertStop(const v1::Stop& stop, const ServedModel& model, StopConditions* out) {
  STATEHOUSE_TAKE(stop, max_tokens, "stop.", AtLeast(int64_t{1}), &out->max_tokens);
  if (absl::Status status = AtLeast(int64_t{0})("stop.min_tokens", stop.min_tokens()); !status.ok()) return status;
  out->min_tokens = stop.min_tokens();
  if (stop.has_max_tokens() && stop.min_tokens() > stop.max_tokens()) {
    return InvalidField("stop.min_tokens", absl::StrCat(stop.min_tokens()),
                        absl::StrCat("at most stop.max_tokens, which is ", stop.max_tokens()));
  }
  if (absl::Status status = ConvertStopStrings(stop, model, out); !status.ok()) return status;
  out->include_stop = stop.include_matched();
  if (absl::Status status = ConvertIds("stop.token_ids", stop.token_ids(), model.vocab_size, &out->stop_token_ids);
      !status.ok()) {
    return status;
  }
  out->ignore_eos = stop.ignore_eos();
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTokenIds(std::string_view field, const google::protobuf::RepeatedField<int32_t>& ids,
                           int64_t vocab_size) {
  const auto bad = std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return id < 0 || id >= vocab_size; });
  if (bad == ids.end()) return absl::OkStatus();
  return CheckTokenId(absl::StrCat(std::string(field), "[", bad - ids.begin(), "]"), *bad, vocab_size);
}

absl::StatusOr<std::unique_ptr<Request>> ToRequest(const v1::GenerateRequest& request, const ServedModel& model) {
  auto out = std::make_unique<Request>();
  // Cheap checks first: the prompt may be long.
  if (absl::Status status = ConvertSampling(request.sampling(), model, &out->sampling); !status.ok()) return status;
  if (absl::Status status = ConvertStop(request.stop(), model, &out->stop); !status.ok()) return status;
  STATEHOUSE_TAKE(request, n, "", InRange(1, kMaxOutputs), &out->n);
  STATEHOUSE_TAKE(request, logprobs, "", InRange(0, kMaxLogprobs), &out->num_logprobs);
  STATEHOUSE_TAKE(request, prompt_logprobs, "", InRange(0, kMaxLogprobs), &out->num_prompt_logprobs);
  if (absl::Status status = InRange(-1000, 1000)("priority", request.priority()); !status.ok()) return status;
  out->priority = request.priority();
  out->show_special_tokens = request.show_special_tokens();
  if (absl::Status status = ConvertPrompt(request, model, &out->prompt); !status.ok()) return status;
  if (request.has_chat() && model.chat_template.has_value()) {
    // The marker that ends an answer in this template ends the output, as EOS does.
    if (!out->stop.ignore_eos) {
      const auto ids = model.chat_template->stop_ids();
      out->stop.stop_token_ids.insert(out->stop.stop_token_ids.end(), ids.begin(), ids.end());
    }
  }
  return out;
}

absl::StatusOr<std::vector<int32_t>> ToTokenIds(const v1::TokenizeRequest& request, const ServedModel& model) {
  std::vector<int32_t> ids;
  absl::Status status;
  switch (request.input_case()) {
    case v1::TokenizeRequest::kText:
      status = ConvertText(request.text(), !request.has_add_special_tokens() || request.add_special_tokens(),
                           request.parse_special_tokens(), model, &ids);
      break;
    case v1::TokenizeRequest::kChat:
      status = ConvertChat(request.chat(), model, &ids);
      break;
    case v1::TokenizeRequest::INPUT_NOT_SET:
      status = InvalidField("input", "nothing", "exactly one of text and chat");
      break;
  }
  if (!status.ok()) return status;
  return ids;
}

#undef STATEHOUSE_TAKE

}  // namespace statehouse
