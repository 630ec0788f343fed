#include "server/convert_request.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "server/convert_prompt.h"
#include "server/field_checks.h"

namespace statehouse {
namespace {

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
  if (sampling.has_temperature()) out->temperature = sampling.temperature();
  if (sampling.has_top_k()) out->top_k = sampling.top_k();
  if (sampling.has_top_p()) out->top_p = sampling.top_p();
  if (sampling.has_min_p()) out->min_p = sampling.min_p();
  if (sampling.has_typical_p()) out->typical_p = sampling.typical_p();
  if (sampling.has_repetition_penalty()) out->repetition_penalty = sampling.repetition_penalty();
  if (sampling.has_presence_penalty()) out->presence_penalty = sampling.presence_penalty();
  if (sampling.has_frequency_penalty()) out->frequency_penalty = sampling.frequency_penalty();
  for (const auto& [id, bias] : sampling.logit_bias()) out->logit_bias.emplace_back(id, bias);
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
  for (int i = 0; i < stop.strings_size(); ++i) {
    if (absl::Status status = CheckUtf8(absl::StrCat("stop.strings[", i, "]"), stop.strings(i)); !status.ok()) {
      return status;
    }
  }
  out->stop.assign(stop.strings().begin(), stop.strings().end());
  if (out->stop.empty() || model.tokenizer != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("stop.strings: this model has no tokenizer (",
                                                    model.why_no_tokenizer,
                                                    "), so there is no text to search; use stop.token_ids"));
}

absl::Status ConvertStop(const v1::Stop& stop, const ServedModel& model, StopConditions* out) {
  if (stop.has_max_tokens() && stop.max_tokens() < 1) {
    return InvalidField("stop.max_tokens", absl::StrCat(stop.max_tokens()), "a number of at least 1, or none");
  }
  out->max_tokens = stop.max_tokens();
  out->min_tokens = stop.min_tokens();
  if (absl::Status status = ConvertStopStrings(stop, model, out); !status.ok()) return status;
  out->include_stop = stop.include_matched();
  out->ignore_eos = stop.ignore_eos();
  return ConvertIds("stop.token_ids", stop.token_ids(), model.vocab_size, &out->stop_token_ids);
}

// The engine's "none" is no value of the wire: there the field is left out.
absl::Status ConvertLogprobs(std::string_view field, bool is_set, int32_t value, int32_t* out) {
  if (!is_set) return absl::OkStatus();
  if (value < 0) return InvalidField(field, absl::StrCat(value), "a number of at least 0, or none");
  *out = value;
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTokenIds(std::string_view field, const google::protobuf::RepeatedField<int32_t>& ids,
                           int64_t vocab_size) {
  const auto bad = std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return id < 0 || id >= vocab_size; });
  if (bad == ids.end()) return absl::OkStatus();
  return CheckTokenId(absl::StrCat(std::string(field), "[", bad - ids.begin(), "]"), *bad, vocab_size);
}

absl::StatusOr<std::unique_ptr<Request>> ToParameters(const v1::GenerateRequest& request, const ServedModel& model) {
  auto out = std::make_unique<Request>();
  if (absl::Status status = ConvertSampling(request.sampling(), model, &out->sampling); !status.ok()) return status;
  if (absl::Status status = ConvertStop(request.stop(), model, &out->stop); !status.ok()) return status;
  if (request.has_n()) out->n = request.n();
  out->priority = request.priority();
  if (absl::Status status = ConvertLogprobs("logprobs", request.has_logprobs(), request.logprobs(), &out->num_logprobs);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = ConvertLogprobs("prompt_logprobs", request.has_prompt_logprobs(), request.prompt_logprobs(),
                                            &out->num_prompt_logprobs);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = ValidateParameters(*out, model.vocab_size); !status.ok()) return status;
  out->show_special_tokens = request.show_special_tokens();
  if (request.has_chat() && model.chat_template.has_value()) {
    // The marker that ends an answer in this template ends the output, as EOS does.
    if (!out->stop.ignore_eos) {
      const auto ids = model.chat_template->stop_ids();
      out->stop.stop_token_ids.insert(out->stop.stop_token_ids.end(), ids.begin(), ids.end());
    }
  }
  return out;
}

absl::StatusOr<std::unique_ptr<Request>> ToRequest(const v1::GenerateRequest& request, const ServedModel& model) {
  // Cheap checks first: the prompt may be long.
  absl::StatusOr<std::unique_ptr<Request>> out = ToParameters(request, model);
  if (!out.ok()) return out.status();
  if (absl::Status status = ConvertPrompt(request, model, &(*out)->prompt); !status.ok()) return status;
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
      status = ConvertChat(request.chat(), model, /*held=*/{}, &ids);
      break;
    case v1::TokenizeRequest::INPUT_NOT_SET:
      status = InvalidField("input", "nothing", "exactly one of text and chat");
      break;
  }
  if (!status.ok()) return status;
  return ids;
}

}  // namespace statehouse
