#include "server/generation_run.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/convert_request.h"
#include "server/status.h"

namespace statehouse {
namespace {

constexpr size_t kMaxLoggedPromptBytes = 4096;

std::string PromptText(const v1::GenerateRequest& request) {
  std::string text;
  if (request.has_text()) {
    text = request.text();
  } else if (request.has_chat()) {
    for (const auto& message : request.chat().messages())
      absl::StrAppend(&text, message.role(), ": ", message.content(), "\n");
  } else {
    text = absl::StrCat(request.token_ids().ids_size(), " token ids");
  }
  return text.substr(0, kMaxLoggedPromptBytes);
}

std::string CodeName(const absl::Status& status) { return absl::StatusCodeToString(status.code()); }

const char* ReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_CANCELLED:
      return "cancelled";
    case v1::FINISH_REASON_DEADLINE:
      return "deadline";
    default:
      return "error";
  }
}

}  // namespace

GenerationRun::GenerationRun(const CallEnvironment* environment, const char* method)
    : environment_(environment), method_(method) {
  environment_->metrics->live_calls.fetch_add(1, std::memory_order_relaxed);
}

GenerationRun::~GenerationRun() {
  Detach();
  environment_->metrics->live_calls.fetch_sub(1, std::memory_order_relaxed);
}

absl::Status GenerationRun::Identify(grpc::CallbackServerContext* context) {
  return ReadCallInfo(context, *environment_->auth, &info_);
}

absl::Status GenerationRun::Submit(const v1::GenerateRequest& request, EventStream::Listener* listener) {
  absl::StatusOr<const ServedModel*> model = environment_->model->Find(request.model());
  if (!model.ok()) return model.status();
  model_ = *model;
  if (environment_->log_prompts) prompt_text_ = PromptText(request);
  absl::StatusOr<std::unique_ptr<Request>> converted = ToRequest(request, *model_);
  if (!converted.ok()) return converted.status();
  (*converted)->id = info_.request_id;
  (*converted)->principal = info_.principal;
  (*converted)->deadline = info_.deadline;
  prompt_tokens_ = static_cast<int64_t>((*converted)->prompt.size());
  num_outputs_ = (*converted)->n;
  std::vector<int32_t> prompt = (*converted)->prompt;
  auto stream = model_->engine->Submit(*std::move(converted));
  if (!stream.ok()) return stream.status();
  stream_ = *std::move(stream);
  converter_.emplace(request, model_, stream_, std::move(prompt));
  stream_->SetListener(listener);
  return absl::OkStatus();
}

void GenerationRun::Detach() {
  if (stream_ != nullptr) stream_->SetListener(nullptr);
}

EventConverter::Result GenerationRun::Take(v1::GenerateEvent* event) {
  const EventConverter::Result result = converter_->Take(event);
  ObserveTokens();
  if (event->has_started()) environment_->metrics->prompt_tokens.fetch_add(prompt_tokens_, std::memory_order_relaxed);
  if (event->has_finished()) {
    absl::StrAppend(&finish_reasons_, finish_reasons_.empty() ? "" : ",", ReasonName(event->finished().reason()));
  }
  done_ = done_ || result == EventConverter::Result::kDone;
  return result;
}

void GenerationRun::ObserveTokens() {
  const int64_t fresh = converter_->num_tokens() - tokens_seen_;
  if (fresh == 0) return;
  const absl::Time now = absl::Now();
  environment_->metrics->generation_tokens.fetch_add(fresh, std::memory_order_relaxed);
  // Tokens that were taken together share the time since the last ones; with n > 1 each output gets one of each n. The
  // first tokens have no gap before them.
  if (tokens_seen_ > 0) {
    environment_->metrics->inter_token_latency.Observe(
        absl::ToDoubleSeconds(now - last_token_) * num_outputs_ / static_cast<double>(fresh), fresh);
  }
  tokens_seen_ = converter_->num_tokens();
  last_token_ = now;
}

void GenerationRun::AddUsage(Log::Fields* fields) const {
  const Usage usage = stream_->usage();
  const Timings timings = stream_->timings();
  fields->emplace_back("prompt_tokens", usage.prompt_tokens);
  fields->emplace_back("cached_tokens", usage.cached_tokens);
  fields->emplace_back("completion_tokens", usage.completion_tokens);
  if (!finish_reasons_.empty()) fields->emplace_back("finish", finish_reasons_);
  fields->emplace_back("queued_ms", timings.queued * 1e3);
  fields->emplace_back("prefill_ms", timings.prefill * 1e3);
  fields->emplace_back("decode_ms", timings.decode * 1e3);
  fields->emplace_back("ttft_ms", timings.first_token * 1e3);
}

grpc::Status GenerationRun::Conclude(const absl::Status& ended) {
  // gRPC cancels a call whose deadline passes, and may be there before the engine: it is the deadline all the same.
  const bool is_late = absl::IsCancelled(ended) && absl::Now() >= info_.deadline;
  const absl::Status status = is_late ? absl::DeadlineExceededError(ended.message()) : ended;
  Log::Fields fields = {{"id", info_.request_id},
                        {"principal", info_.principal},
                        {"method", std::string(method_)},
                        {"model", model_ == nullptr ? std::string() : model_->name},
                        {"status", CodeName(status)}};
  if (done_) {
    AddUsage(&fields);
    environment_->metrics->ObserveRequest(stream_->usage(), stream_->timings(), status.ok());
  } else if (prompt_tokens_ > 0) {
    fields.emplace_back("prompt_tokens", prompt_tokens_);
  }
  fields.emplace_back("total_ms", absl::ToDoubleMilliseconds(absl::Now() - start_));
  // Messages of INVALID_ARGUMENT quote what was sent: with --log-prompts only.
  if (!status.ok() && (status.code() != absl::StatusCode::kInvalidArgument || environment_->log_prompts)) {
    fields.emplace_back("error", std::string(status.message()));
  }
  if (!prompt_text_.empty()) fields.emplace_back("prompt", prompt_text_);
  environment_->metrics->CountCall(method_, CodeName(status));
  environment_->log->Info("request", fields);
  return ToGrpcStatus(status);
}

}  // namespace statehouse
