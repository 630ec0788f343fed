#include "clients/cli/response.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "clients/cli/session_view.h"

namespace statehouse::cli {
namespace {

using Json = nlohmann::ordered_json;

Json LogprobsJson(const google::protobuf::RepeatedPtrField<v1::TokenLogprobs>& tokens) {
  if (tokens.empty()) return nullptr;
  Json list = Json::array();
  for (const v1::TokenLogprobs& token : tokens) {
    Json top = Json::array();
    for (const v1::TopLogprob& one : token.top()) {
      top.push_back({{"token_id", one.token_id()}, {"text", one.text()}, {"logprob", one.logprob()}});
    }
    list.push_back({{"token_id", token.token_id()},
                    {"text", token.text()},
                    {"logprob", token.logprob()},
                    {"position", token.position()},
                    {"top", std::move(top)}});
  }
  return list;
}

Json CacheJson(const v1::CacheReport& cache) {
  // "CACHE_MISS_NO_SNAPSHOT" without what is the same in all.
  const std::string& name = v1::CacheMiss_Name(cache.miss());
  std::string miss = name.substr(std::min(name.size(), sizeof("CACHE_MISS_") - 1));
  std::transform(miss.begin(), miss.end(), miss.begin(), [](unsigned char c) { return std::tolower(c); });
  const std::string tier = TierName(cache.tier());
  return {{"cached_tokens", cache.cached_tokens()},
          {"tier", tier.empty() ? Json(nullptr) : Json(tier)},
          {"miss", miss},
          {"matched_tokens", cache.matched_tokens()},
          {"explanation", cache.explanation()}};
}

Json OutputJson(const v1::Output& output) {
  const std::string reason = FinishReasonName(output.reason());
  return {{"index", output.index()},
          {"token_ids", Json(std::vector<int32_t>(output.token_ids().begin(), output.token_ids().end()))},
          {"text", output.text()},
          {"logprobs", LogprobsJson(output.logprobs())},
          {"finish_reason", reason.empty() ? Json(nullptr) : Json(reason)},
          {"stop_string", output.has_stop_string() ? Json(output.stop_string()) : Json(nullptr)},
          {"stop_token_id", output.has_stop_token_id() ? Json(output.stop_token_id()) : Json(nullptr)}};
}

Json OutcomeJson(const v1::SessionOutcome& outcome) {
  return {{"session_id", outcome.session_id()},
          {"position_before", outcome.position_before()},
          {"position", outcome.position()},
          {"committed", outcome.committed()},
          {"repeated", outcome.repeated()},
          {"exactness", ExactnessName(outcome.exactness())},
          {"replayed_tokens", outcome.replayed_tokens()},
          {"numeric_difference", outcome.numeric_difference()}};
}

}  // namespace

v1::Output* ResponseCollector::OutputAt(int index) {
  while (response_.outputs_size() <= index) {
    const int next = response_.outputs_size();
    response_.add_outputs()->set_index(next);
  }
  return response_.mutable_outputs(index);
}

void ResponseCollector::Add(const v1::GenerateEvent& event) {
  switch (event.event_case()) {
    case v1::GenerateEvent::kStarted:
      response_.set_request_id(event.started().request_id());
      response_.set_model(event.started().model());
      if (event.started().has_cache()) *response_.mutable_cache() = event.started().cache();
      response_.set_seed(event.started().seed());
      *response_.mutable_prompt_token_ids() = event.started().prompt_token_ids();
      response_.mutable_usage()->set_prompt_tokens(event.started().prompt_tokens());
      break;
    case v1::GenerateEvent::kPromptLogprobs:
      response_.mutable_prompt_logprobs()->MergeFrom(event.prompt_logprobs().tokens());
      break;
    case v1::GenerateEvent::kDelta: {
      v1::Output* output = OutputAt(event.delta().index());
      output->mutable_text()->append(event.delta().text());
      output->mutable_token_ids()->MergeFrom(event.delta().token_ids());
      output->mutable_logprobs()->MergeFrom(event.delta().logprobs());
      break;
    }
    case v1::GenerateEvent::kFinished: {
      v1::Output* output = OutputAt(event.finished().index());
      output->mutable_text()->append(event.finished().text());
      output->set_reason(event.finished().reason());
      if (event.finished().has_stop_string()) output->set_stop_string(event.finished().stop_string());
      if (event.finished().has_stop_token_id()) output->set_stop_token_id(event.finished().stop_token_id());
      break;
    }
    case v1::GenerateEvent::kDone:
      if (event.done().has_cache()) *response_.mutable_cache() = event.done().cache();
      *response_.mutable_usage() = event.done().usage();
      *response_.mutable_timings() = event.done().timings();
      if (event.done().has_session()) *response_.mutable_session() = event.done().session();
      break;
    case v1::GenerateEvent::EVENT_NOT_SET:
      break;  // of a newer server
  }
}

std::string FinishReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_CANCELLED:
      return "cancelled";
    case v1::FINISH_REASON_DEADLINE:
      return "deadline";
    case v1::FINISH_REASON_ERROR:
      return "error";
    default:
      return "";
  }
}

std::string ResponseJson(const v1::GenerateResponse& response, const absl::Status& status) {
  Json outputs = Json::array();
  for (const v1::Output& output : response.outputs()) outputs.push_back(OutputJson(output));
  const v1::Usage& usage = response.usage();
  const v1::Timings& timings = response.timings();
  Json json = {{"request_id", response.request_id()},
               {"model", response.model()},
               {"seed", response.seed()},
               {"prompt_token_ids",
                Json(std::vector<int32_t>(response.prompt_token_ids().begin(), response.prompt_token_ids().end()))},
               {"prompt_logprobs", LogprobsJson(response.prompt_logprobs())},
               {"outputs", std::move(outputs)},
               {"usage",
                {{"prompt_tokens", usage.prompt_tokens()},
                 {"completion_tokens", usage.completion_tokens()},
                 {"total_tokens", usage.total_tokens()},
                 {"cached_tokens", usage.cached_tokens()}}},
               {"timings",
                {{"queued", timings.queued()},
                 {"prefill", timings.prefill()},
                 {"decode", timings.decode()},
                 {"time_to_first_token", timings.time_to_first_token()},
                 {"total", timings.total()}}}};
  json["cache"] = response.has_cache() ? CacheJson(response.cache()) : Json(nullptr);
  if (response.has_session()) json["session"] = OutcomeJson(response.session());
  if (!status.ok()) {
    json["error"] = {{"code", absl::StatusCodeToString(status.code())}, {"message", std::string(status.message())}};
  }
  // A server may send bytes that are no text; JSON must stay JSON.
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace statehouse::cli
