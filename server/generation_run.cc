#include "server/generation_run.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/convert_request.h"
#include "server/status.h"

namespace statehouse {
namespace {

constexpr absl::Duration kDeadlineSlack = absl::Milliseconds(50);

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
  absl::Status status = ReadCallInfo(context, *environment_->auth, &info_);
  if (status.ok()) ticket_ = environment_->calls->Enter(info_.principal, info_.request_id);
  return status;
}

absl::Status GenerationRun::Prepare(const v1::GenerateRequest& request) {
  absl::StatusOr<const ServedModel*> model = environment_->model->Find(request.model());
  if (!model.ok()) return model.status();
  model_ = *model;
  if (environment_->log_prompts) prompt_text_ = PromptText(request);
  absl::StatusOr<std::unique_ptr<Request>> converted =
      request.has_session() ? ToParameters(request, *model_) : ToRequest(request, *model_);
  if (!converted.ok()) return converted.status();
  (*converted)->id = info_.request_id;
  (*converted)->principal = info_.principal;
  (*converted)->deadline = info_.deadline;
  if (request.has_session()) {
    if (absl::Status status = BeginTurn(request, converted->get()); !status.ok()) return status;
  }
  converted_ = *std::move(converted);
  may_block_ = turn_ == nullptr && PrefixUse::MayBlock(request, *model_, info_.principal, *converted_);
  return absl::OkStatus();
}

absl::Status GenerationRun::Submit(const v1::GenerateRequest& request, EventStream::Listener* listener) {
  std::vector<int32_t> prompt = turn_ == nullptr ? converted_->prompt : turn_->input();
  prompt_tokens_ = static_cast<int64_t>(prompt.size());
  paces_.resize(converted_->n);
  if (turn_ == nullptr) {  // a session goes on from its own snapshots
    absl::Status status = prefix_.Prepare(request, *model_, info_.principal, converted_.get());
    if (!status.ok()) return status;
  }
  if (absl::Status status = Start(std::move(converted_)); !status.ok()) {
    if (turn_ != nullptr) turn_->Refuse();  // its session is as before
    turn_.reset();
    return status;
  }
  converter_.emplace(request, model_, stream_, std::move(prompt));
  if (turn_ != nullptr || prefix_.wants_answer()) converter_->KeepAnswer();
  if (turn_ != nullptr) converter_->StartAt(request.session().resume_from());
  stream_->SetListener(listener);
  return absl::OkStatus();
}

absl::Status GenerationRun::BeginTurn(const v1::GenerateRequest& request, Request* engine_request) {
  if (ticket_->cancelled()) return absl::CancelledError("cancelled before the turn began");
  auto turn = SessionTurn::Begin(request, *model_, info_, environment_->turns, engine_request);
  if (!turn.ok()) return turn.status();
  turn_ = *std::move(turn);
  may_come_back_ = !request.session().idempotency_key().empty();
  return absl::OkStatus();
}

absl::Status GenerationRun::Start(std::unique_ptr<Request> request) {
  if (ticket_->cancelled()) return absl::CancelledError("cancelled before the request was queued");
  if (turn_ != nullptr && turn_->is_repeated()) {
    absl::StatusOr<std::shared_ptr<EventStream>> first = turn_->Replay(*request, *model_);
    if (!first.ok()) return first.status();
    stream_ = *std::move(first);
    ticket_->Leave();
    return absl::OkStatus();
  }
  auto stream = model_->engine->Submit(std::move(request));
  if (!stream.ok()) return stream.status();
  stream_ = *std::move(stream);
  if (ticket_->Leave()) stream_->Cancel();  // Cancel came after the check, and before the engine knew the id
  if (turn_ != nullptr) turn_->Running(stream_);
  return absl::OkStatus();
}

absl::Status GenerationRun::Settle(const absl::Status& ended, bool client_lost) {
  const absl::Time begin = absl::Now();
  // A caller whose stream broke off, or whose server stops, asks again with the same key, here or elsewhere, and wants
  // the whole answer then. One that set a deadline and is late has given up.
  const bool is_stopped = environment_->shut_down.load(std::memory_order_acquire);
  const bool is_late = begin + kDeadlineSlack >= info_.deadline;
  const bool comes_back = may_come_back_ && (is_stopped || (client_lost && !is_late));
  absl::Status status = turn_->Settle(ended, converter_->answer(), num_delivered_, comes_back);
  environment_->metrics->ObserveTurn(turn_->outcome().committed(), turn_->outcome().repeated(), absl::Now() - begin);
  return status;
}

void GenerationRun::Detach() {
  if (stream_ != nullptr) stream_->SetListener(nullptr);
}

EventConverter::Result GenerationRun::Take(v1::GenerateEvent* event) {
  const EventConverter::Result result = converter_->Take(event);
  ObserveTokens();
  if (result == EventConverter::Result::kNothing) behind_ = false;
  if (event->has_started() && turn_ != nullptr) turn_->FillStarted(event->mutable_started());
  if (event->has_started()) environment_->metrics->prompt_tokens.fetch_add(prompt_tokens_, std::memory_order_relaxed);
  if (event->has_finished()) ObserveOutput(event->finished());
  if (turn_ == nullptr) prefix_.AddReport(event);
  if (result == EventConverter::Result::kDone) prefix_.Keep(*stream_, converter_->answer().tokens);
  done_ = done_ || result == EventConverter::Result::kDone;
  return result;
}

void GenerationRun::ObserveTokens() {
  if (converter_->num_tokens() == tokens_seen_) return;
  const absl::Time now = absl::Now();
  environment_->metrics->generation_tokens.fetch_add(converter_->num_tokens() - tokens_seen_,
                                                     std::memory_order_relaxed);
  tokens_seen_ = converter_->num_tokens();
  for (size_t output = 0; output < paces_.size(); ++output) {
    Pace& pace = paces_[output];
    const int64_t fresh = converter_->num_tokens(static_cast<int32_t>(output)) - pace.tokens;
    if (fresh == 0) continue;
    if (pace.tokens == 0) {
      pace.first = now;
      pace.first_tokens = fresh;
    } else if (!behind_) {
      // Tokens that were taken together share the time since the last ones.
      environment_->metrics->inter_token_latency.Observe(
          absl::ToDoubleSeconds(now - pace.last) / static_cast<double>(fresh), fresh);
    }
    pace.was_behind = pace.was_behind || behind_;
    pace.tokens += fresh;
    pace.last = now;
  }
}

void GenerationRun::ObserveOutput(const v1::Finished& finished) {
  const FinishReason reason = FromProto(finished.reason());
  absl::StrAppend(&finish_reasons_, finish_reasons_.empty() ? "" : ",", FinishReasonName(reason));
  const Pace& pace = paces_[finished.index()];
  const int64_t later_tokens = pace.tokens - pace.first_tokens;
  const bool is_complete = reason == FinishReason::kStop || reason == FinishReason::kLength;
  if (!is_complete || pace.was_behind || later_tokens == 0) return;
  environment_->metrics->time_per_output_token.Observe(absl::ToDoubleSeconds(pace.last - pace.first) /
                                                       static_cast<double>(later_tokens));
}

void GenerationRun::AddUsage(Log::Fields* fields) const {
  const Usage usage = stream_->usage();
  const Timings timings = stream_->timings();
  fields->emplace_back("prompt_tokens", usage.prompt_tokens);
  fields->emplace_back("cached_tokens", usage.cached_tokens);
  prefix_.AddFields(fields);
  fields->emplace_back("completion_tokens", usage.completion_tokens);
  if (turn_ != nullptr) {
    const v1::SessionOutcome& outcome = turn_->outcome();
    fields->emplace_back("session", outcome.session_id());
    fields->emplace_back("session_position", outcome.position());
    fields->emplace_back("turn", std::string(outcome.repeated()    ? "repeated"
                                             : outcome.committed() ? "committed"
                                                                   : "dropped"));
  }
  if (!finish_reasons_.empty()) fields->emplace_back("finish", finish_reasons_);
  fields->emplace_back("queued_ms", timings.queued * 1e3);
  fields->emplace_back("prefill_ms", timings.prefill * 1e3);
  fields->emplace_back("decode_ms", timings.decode * 1e3);
  fields->emplace_back("ttft_ms", timings.first_token * 1e3);
}

grpc::Status GenerationRun::Conclude(const absl::Status& ended) {
  // gRPC cancels a call whose deadline passes, and may be there before the engine: it is the deadline all the same. The
  // client's clock began a little before ours, so its cancellation can arrive a little before our deadline.
  const bool is_late = absl::IsCancelled(ended) && absl::Now() + kDeadlineSlack >= info_.deadline;
  const bool is_stopped = absl::IsCancelled(ended) && environment_->shut_down.load(std::memory_order_acquire);
  const absl::Status status =
      is_late      ? absl::DeadlineExceededError(ended.message())
      : is_stopped ? absl::UnavailableError(absl::StrCat("the server is stopping; the request was ",
                                                         std::string(ended.message()), "; send it to another server"))
                   : ended;
  ticket_.reset();
  Log::Fields fields = {{"id", info_.request_id},
                        {"principal", info_.principal},
                        {"method", std::string(method_)},
                        {"model", model_ == nullptr ? std::string() : model_->name},
                        {"status", CodeName(status)}};
  if (done_) {
    AddUsage(&fields);
    environment_->metrics->ObserveRequest(stream_->usage(), stream_->timings());
  } else if (prompt_tokens_ > 0) {
    fields.emplace_back("prompt_tokens", prompt_tokens_);
  }
  fields.emplace_back("total_ms", absl::ToDoubleMilliseconds(absl::Now() - start_));
  AddError(status, environment_->log_prompts, &fields);
  if (!prompt_text_.empty()) fields.emplace_back("prompt", prompt_text_);
  environment_->metrics->CountCall(method_, CodeName(status));
  environment_->log->Info("request", fields);
  return ToGrpcStatus(status);
}

}  // namespace statehouse
