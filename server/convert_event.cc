#include "server/convert_event.h"

#include <algorithm>
#include <utility>

#include "proto/utf8.h"

namespace statehouse {
namespace {

// Bounds one message; a Delta of more tokens would hold up the reader's first ones.
constexpr int kMaxTokensPerEvent = 256;

void FillDone(const EventStream& stream, v1::Done* out) {
  const Usage usage = stream.usage();
  out->mutable_usage()->set_prompt_tokens(usage.prompt_tokens);
  out->mutable_usage()->set_completion_tokens(usage.completion_tokens);
  out->mutable_usage()->set_total_tokens(usage.prompt_tokens + usage.completion_tokens);
  out->mutable_usage()->set_cached_tokens(usage.cached_tokens);
  const Timings timings = stream.timings();
  out->mutable_timings()->set_queued(timings.queued);
  out->mutable_timings()->set_prefill(timings.prefill);
  out->mutable_timings()->set_decode(timings.decode);
  out->mutable_timings()->set_time_to_first_token(timings.first_token);
  out->mutable_timings()->set_total(timings.total);
}

}  // namespace

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return v1::FINISH_REASON_UNSPECIFIED;
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
    case FinishReason::kDeadline:
      return v1::FINISH_REASON_DEADLINE;
    case FinishReason::kError:
      return v1::FINISH_REASON_ERROR;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

FinishReason FromProto(v1::FinishReason reason) {
  for (const FinishReason ours : {FinishReason::kNone, FinishReason::kStop, FinishReason::kLength,
                                  FinishReason::kCancelled, FinishReason::kDeadline}) {
    if (ToProto(ours) == reason) return ours;
  }
  return FinishReason::kError;
}

EventConverter::EventConverter(const v1::GenerateRequest& request, const ServedModel* model,
                               std::shared_ptr<EventStream> stream, std::vector<int32_t> prompt)
    : model_(model),
      stream_(std::move(stream)),
      stop_strings_(request.stop().strings().begin(), request.stop().strings().end()),
      return_token_ids_(!request.has_return_token_ids() || request.return_token_ids()),
      logprobs_(request.has_logprobs()),
      show_special_(request.show_special_tokens()),
      prompt_(std::move(prompt)) {
  outputs_.reserve(stream_->n());
  for (int32_t i = 0; i < stream_->n(); ++i) outputs_.emplace_back(model_->tokenizer, show_special_);
}

EventConverter::Result EventConverter::Take(v1::GenerateEvent* out) {
  out->Clear();
  while (Peek()) {
    const Event event = *next_;
    switch (event.kind) {
      case Event::Kind::kStarted:
        next_.reset();
        Start(event, out->mutable_started());
        return Result::kEvent;
      case Event::Kind::kPromptLogprob: {
        auto* tokens = out->mutable_prompt_logprobs()->mutable_tokens();
        while (Peek() && next_->kind == Event::Kind::kPromptLogprob && tokens->size() < kMaxTokensPerEvent) {
          AddLogprobs(*next_, tokens->Add());
          next_.reset();
        }
        return Result::kEvent;
      }
      case Event::Kind::kToken: {
        v1::Delta* delta = out->mutable_delta();
        delta->set_index(event.output);
        for (int taken = 0; taken < kMaxTokensPerEvent && Peek(); ++taken) {
          if (next_->kind != Event::Kind::kToken || next_->output != event.output) break;
          v1::Delta skipped;
          AddToken(*next_, next_->position < start_at_ ? &skipped : delta);
          next_.reset();
        }
        // With text only, a token that completes no character has nothing to say yet.
        if (!delta->text().empty() || delta->token_ids_size() > 0 || delta->logprobs_size() > 0) return Result::kEvent;
        out->Clear();
        break;
      }
      case Event::Kind::kOutputFinished:
        next_.reset();
        FinishOutput(event, out->mutable_finished());
        return Result::kEvent;
      case Event::Kind::kDone:
        next_.reset();
        FillDone(*stream_, out->mutable_done());
        return Result::kDone;
    }
  }
  return Result::kNothing;
}

bool EventConverter::Peek() {
  if (next_.has_value()) return true;
  next_.emplace();
  if (stream_->TryNext(&*next_)) return true;
  next_.reset();
  return false;
}

void EventConverter::Start(const Event& event, v1::Started* out) {
  out->set_request_id(stream_->request_id());
  out->set_model(model_->name);
  out->set_seed(event.seed);
  out->set_prompt_tokens(static_cast<int64_t>(prompt_.size()));
  if (return_token_ids_) out->mutable_prompt_token_ids()->Add(prompt_.begin(), prompt_.end());
  prompt_ = {};
}

void EventConverter::AddToken(const Event& event, v1::Delta* out) {
  Output& output = outputs_[event.output];
  AddToAnswer(event);
  ++output.num_tokens;
  ++num_tokens_;
  if (output.detokenizer.has_value()) output.detokenizer->Append(event.token, &output.pending);
  Release(&output, event.text_bytes, out->mutable_text());
  if (return_token_ids_) out->add_token_ids(event.token);
  if (logprobs_) AddLogprobs(event, out->add_logprobs());
}

void EventConverter::FinishOutput(const Event& event, v1::Finished* out) {
  Output& output = outputs_[event.output];
  if (output.detokenizer.has_value()) output.detokenizer->Flush(&output.pending);
  Release(&output, event.text_bytes, out->mutable_text());
  output.pending = {};
  AddToAnswer(event);
  out->set_index(event.output);
  out->set_reason(ToProto(event.reason));
  out->set_completion_tokens(output.num_tokens);
  if (event.stop_token >= 0) out->set_stop_token_id(event.stop_token);
  if (event.stop_index >= 0 && event.stop_index < static_cast<int32_t>(stop_strings_.size())) {
    out->set_stop_string(stop_strings_[event.stop_index]);
  }
}

void EventConverter::AddToAnswer(const Event& event) {
  if (!keeps_answer_ || event.output != 0) return;
  if (event.kind == Event::Kind::kToken) {
    answer_.tokens.push_back(event.token);
    return;
  }
  answer_.reason = event.reason;
  answer_.stop_token = event.stop_token;
  if (event.stop_index >= 0 && event.stop_index < static_cast<int32_t>(stop_strings_.size())) {
    answer_.stop_string = stop_strings_[event.stop_index];
  }
}

void EventConverter::Release(Output* output, int64_t text_bytes, std::string* text) {
  const int64_t final_bytes =
      std::clamp<int64_t>(text_bytes - output->released_bytes, 0, static_cast<int64_t>(output->pending.size()));
  // Stop strings hold text back byte by byte; a message holds whole characters.
  const size_t whole = ValidUtf8Prefix(std::string_view(output->pending).substr(0, final_bytes));
  text->append(output->pending, 0, whole);
  output->pending.erase(0, whole);
  output->released_bytes += static_cast<int64_t>(whole);
}

void EventConverter::AddLogprobs(const Event& event, v1::TokenLogprobs* out) const {
  const auto text = [this](int32_t id) {
    return model_->tokenizer == nullptr ? std::string() : TokenText(*model_->tokenizer, id);
  };
  out->set_token_id(event.token);
  out->set_text(text(event.token));
  out->set_logprob(event.logprob);
  out->set_position(event.position);
  for (int32_t i = 0; i < event.num_top; ++i) {
    v1::TopLogprob* top = out->add_top();
    top->set_token_id(event.top[i].token);
    top->set_text(text(event.top[i].token));
    top->set_logprob(event.top[i].logprob);
  }
}

std::string TokenText(const Tokenizer& tokenizer, int32_t id) {
  return ReplaceInvalidUtf8(tokenizer.IsSpecial(id) ? tokenizer.TokenName(id) : tokenizer.TokenBytes(id));
}

void Fold(const v1::GenerateEvent& event, v1::GenerateResponse* response) {
  const auto output = [response](int32_t index) {
    while (response->outputs_size() <= index) {
      const int32_t next = response->outputs_size();
      response->add_outputs()->set_index(next);
    }
    return response->mutable_outputs(index);
  };
  switch (event.event_case()) {
    case v1::GenerateEvent::kStarted:
      response->set_request_id(event.started().request_id());
      response->set_model(event.started().model());
      response->set_seed(event.started().seed());
      *response->mutable_prompt_token_ids() = event.started().prompt_token_ids();
      *response->mutable_cache() = event.started().cache();
      break;
    case v1::GenerateEvent::kPromptLogprobs:
      response->mutable_prompt_logprobs()->MergeFrom(event.prompt_logprobs().tokens());
      break;
    case v1::GenerateEvent::kDelta: {
      v1::Output* to = output(event.delta().index());
      to->mutable_text()->append(event.delta().text());
      to->mutable_token_ids()->MergeFrom(event.delta().token_ids());
      to->mutable_logprobs()->MergeFrom(event.delta().logprobs());
      break;
    }
    case v1::GenerateEvent::kFinished: {
      v1::Output* to = output(event.finished().index());
      to->mutable_text()->append(event.finished().text());
      to->set_reason(event.finished().reason());
      if (event.finished().has_stop_string()) to->set_stop_string(event.finished().stop_string());
      if (event.finished().has_stop_token_id()) to->set_stop_token_id(event.finished().stop_token_id());
      break;
    }
    case v1::GenerateEvent::kDone:
      *response->mutable_usage() = event.done().usage();
      *response->mutable_timings() = event.done().timings();
      if (event.done().has_session()) *response->mutable_session() = event.done().session();
      if (event.done().has_cache()) *response->mutable_cache() = event.done().cache();
      break;
    case v1::GenerateEvent::EVENT_NOT_SET:
      break;
  }
}

}  // namespace statehouse
