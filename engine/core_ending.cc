// Core: what ends a request: its client, a deadline, a slow reader, the device, or all of its outputs being complete.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core.h"

namespace statehouse {

bool Core::EndDue() {
  bool any = false;
  // The counter is read before the queue, so that a cancellation in between is seen by the next step.
  const uint64_t cancels = deps_.waker->cancels();
  if (cancels != cancels_seen_ || deps_.roster->earliest_deadline() <= now_) {
    cancels_seen_ = cancels;
    while (Generation* generation = deps_.roster->PopEnded(now_, /*everything=*/false)) {
      EndQueued(generation, generation->stream->cancelled() ? Ending::Why::kCancelled : Ending::Why::kDeadline);
      any = true;
    }
  }
  for (size_t idx = 0; idx < running_.size();) {
    Generation* const generation = running_[idx];
    Ending::Why why = Ending::Why::kFinished;
    if (generation->closing) {
      ++idx;
      continue;
    }
    if (generation->stream->cancelled()) {
      why = Ending::Why::kCancelled;
    } else if (generation->request->deadline <= now_) {
      why = Ending::Why::kDeadline;
    } else if (IsSlowReader(generation)) {
      why = Ending::Why::kSlowReader;
    }
    if (why == Ending::Why::kFinished) {
      ++idx;
    } else {
      EndRunning(generation, why);  // takes it out of running_, unless a snapshot is taken first
      any = true;
    }
  }
  return any;
}

bool Core::IsSlowReader(Generation* generation) {
  if (!generation->blocked || now_ - generation->blocked_since < options_.slow_reader_timeout) return false;
  if (generation->stream->taken() == generation->taken_when_blocked) return true;
  generation->taken_when_blocked = generation->stream->taken();
  generation->blocked_since = now_;
  return false;
}

void Core::EndQueued(Generation* generation, Ending::Why why) {
  for (int32_t output = 0; output < generation->n(); ++output) {
    writer_.Abandon(generation, output,
                    why == Ending::Why::kDeadline ? FinishReason::kDeadline : FinishReason::kCancelled);
  }
  deps_.roster->Unregister(generation);
  generation->stream->Finish(EndingOf(*generation, why), UsageOf(*generation), TimingsOf(*generation));
  generation->stream->NotifyListener();
  deps_.roster->Bury(generation);
}

void Core::EndRunning(Generation* generation, Ending::Why why) {
  AbandonOutputs(generation, why);
  if (!CloseWithSnapshot(generation, why)) FinishRunning(generation, why);
}

void Core::AbandonOutputs(Generation* generation, Ending::Why why) {
  const bool late = why == Ending::Why::kDeadline || why == Ending::Why::kSlowReader;
  for (int32_t output = 0; output < generation->n(); ++output) {
    if (generation->outputs[output].state == Output::State::kFinished) continue;
    writer_.Abandon(generation, output, late ? FinishReason::kDeadline : FinishReason::kCancelled);
  }
}

void Core::FinishRunning(Generation* generation, Ending::Why why) {
  Retire(generation);
  generation->stream->Finish(EndingOf(*generation, why), UsageOf(*generation), TimingsOf(*generation));
  generation->stream->NotifyListener();
  deps_.roster->Bury(generation);
}

void Core::Retire(Generation* generation) {
  for (size_t idx = 0; idx < active_.size();) {
    if (active_[idx]->generation == generation) {
      ReleaseSequence(active_[idx]);  // takes it out of active_
    } else {
      ++idx;
    }
  }
  DropReservation(generation, 0);
  running_.erase(std::find(running_.begin(), running_.end(), generation));
  deps_.roster->Unregister(generation);
}

void Core::EndAll(Ending::Why why) {
  now_ = deps_.clock->Now();
  while (!running_.empty()) {
    AbandonOutputs(running_.back(), why);
    FinishRunning(running_.back(), why);
  }
  while (Generation* generation = deps_.roster->PopEnded(now_, /*everything=*/true)) EndQueued(generation, why);
  PublishCounts();
}

// The device failed: the requests of this step get its error. The others cannot go on either, and are told so.
void Core::FailStep(const absl::Status& error) {
  const std::string reason = absl::StrCat("the device failed: ", std::string(error.message()));
  deps_.roster->SetUnhealthy(absl::StrCat(reason, "; restart the server"));
  const absl::Status of_step = absl::InternalError(reason);
  const absl::Status of_others = absl::UnavailableError(absl::StrCat(reason, " while it served another request"));
  const auto fail = [this](Generation* generation, const absl::Status& status) {
    for (int32_t output = 0; output < generation->n(); ++output) {
      if (generation->outputs[output].state == Output::State::kFinished) continue;
      writer_.Abandon(generation, output, FinishReason::kError);
    }
    generation->stream->Finish(status, UsageOf(*generation), TimingsOf(*generation));
    generation->stream->NotifyListener();
    deps_.roster->Bury(generation);
  };
  while (!running_.empty()) {
    Generation* const generation = running_.back();
    bool in_step = false;
    for (size_t idx = 0; idx < workers_.size(); ++idx) {
      in_step = in_step || (granted_[idx] > 0 && workers_[idx]->generation == generation);
    }
    Retire(generation);
    fail(generation, in_step ? of_step : of_others);
  }
  while (Generation* generation = deps_.roster->PopEnded(now_, /*everything=*/true)) {
    deps_.roster->Unregister(generation);
    fail(generation, of_others);
  }
}

Ending Core::EndingOf(const Generation& generation, Ending::Why why) const {
  Ending ending;
  ending.why = why == Ending::Why::kFinished && generation.no_number ? Ending::Why::kNoNumber : why;
  ending.prompt_tokens = generation.prompt_size();
  ending.prompt_tokens_done = generation.prompt_tokens_done;
  ending.completion_tokens = generation.completion_tokens;
  ending.position = generation.furthest;
  ending.timeout = options_.slow_reader_timeout;
  return ending;
}

Usage Core::UsageOf(const Generation& generation) const {
  Usage usage;
  usage.prompt_tokens = generation.prompt_size();
  usage.cached_tokens = generation.cached_tokens;
  usage.completion_tokens = generation.completion_tokens;
  return usage;
}

Timings Core::TimingsOf(const Generation& generation) const {
  const auto seconds = [](absl::Time from, absl::Time to) { return absl::ToDoubleSeconds(to - from); };
  const absl::Time end = deps_.clock->Now();
  const bool admitted = generation.admitted != absl::InfinitePast();
  const bool answered = generation.first_token != absl::InfinitePast();
  Timings timings;
  timings.total = seconds(generation.submitted, end);
  timings.queued = seconds(generation.submitted, admitted ? generation.admitted : end);
  if (admitted) timings.prefill = seconds(generation.admitted, answered ? generation.first_token : end);
  if (answered) {
    timings.decode = seconds(generation.first_token, end);
    timings.first_token = seconds(generation.submitted, generation.first_token);
  }
  return timings;
}

}  // namespace statehouse
