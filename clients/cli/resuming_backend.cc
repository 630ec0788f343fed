#include "clients/cli/resuming_backend.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cli/random_name.h"

namespace statehouse::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kLongestPause{1000};

// What a proxy or a dying connection makes of a lost server, beside UNAVAILABLE.
bool IsBrokenStream(const absl::Status& status) {
  const std::string message(status.message());
  return (absl::IsInternal(status) || absl::IsUnknown(status)) &&
         (message.find("RST_STREAM") != std::string::npos || message.find("Stream removed") != std::string::npos);
}

// What has arrived of an answer, over all attempts.
class Arrived {
 public:
  Arrived(const v1::GenerateRequest& request, const GenerateBackend::OnEvent& on_event)
      : wants_token_ids_(!request.has_return_token_ids() || request.return_token_ids()),
        on_event_(on_event),
        next_(request.session().resume_from()) {}

  void Take(const v1::GenerateEvent& event) {
    last_event_ = Clock::now();
    if (event.has_started()) {
      if (std::exchange(started_, true)) return;
      next_ = std::max(next_, event.started().session_position() + event.started().prompt_tokens());
    }
    if (event.has_finished()) {
      reason_ = event.finished().reason();
      if (std::exchange(finished_, true)) return;
    }
    if (event.has_done()) outcome_ = event.done().session();
    next_ += event.delta().token_ids_size();
    if (wants_token_ids_ || !(event.has_started() || event.has_delta())) return on_event_(event);
    v1::GenerateEvent without_ids = event;
    if (event.has_started()) without_ids.mutable_started()->clear_prompt_token_ids();
    if (event.has_delta()) {
      without_ids.mutable_delta()->clear_token_ids();
      if (event.delta().text().empty() && event.delta().logprobs().empty()) return;
    }
    on_event_(without_ids);
  }
  bool started() const { return started_; }
  int64_t next() const { return next_; }
  const v1::SessionOutcome& outcome() const { return outcome_; }
  // What came is the whole of an earlier call's answer, which ended before it was complete.
  bool is_cut_off() const {
    return outcome_.repeated() && reason_ != v1::FINISH_REASON_STOP && reason_ != v1::FINISH_REASON_LENGTH;
  }
  Clock::time_point last_event() const { return last_event_; }

 private:
  const bool wants_token_ids_;
  const GenerateBackend::OnEvent& on_event_;
  bool started_ = false;
  bool finished_ = false;
  v1::FinishReason reason_ = v1::FINISH_REASON_UNSPECIFIED;
  v1::SessionOutcome outcome_;
  int64_t next_;  // position of the token to come, at least
  Clock::time_point last_event_ = Clock::now();
};

}  // namespace

ResumingBackend::ResumingBackend(GenerateBackend* inner, Options options)
    : inner_(inner), options_(std::move(options)) {}

absl::Status ResumingBackend::Generate(const v1::GenerateRequest& request, const OnEvent& on_event) {
  if (!request.has_session()) return inner_->Generate(request, on_event);
  v1::GenerateRequest attempt = request;
  if (attempt.session().idempotency_key().empty()) {
    attempt.mutable_session()->set_idempotency_key(RandomName());
  }
  attempt.set_return_token_ids(true);  // their number is the position to go on from
  Arrived arrived(request, on_event);
  std::chrono::milliseconds pause = options_.first_pause;
  bool was_lost = false, told = false;
  while (true) {
    const Clock::time_point began = Clock::now();
    absl::Status status = inner_->Generate(attempt, [&](const v1::GenerateEvent& event) { arrived.Take(event); });
    if (status.ok() && was_lost && arrived.is_cut_off()) {
      return absl::AbortedError(
          absl::StrCat("the answer was cut off while the server was lost; the session keeps what came, and holds ",
                       arrived.outcome().position(), " tokens now; ask again to go on"));
    }
    const bool is_lost = absl::IsUnavailable(status) || IsBrokenStream(status);
    // ABORTED after a loss: the turn that was lost is still held for us, by this server or a dead one's lease.
    was_lost = was_lost || is_lost;
    const bool may_retry = is_lost || (was_lost && absl::IsAborted(status));
    if (!options_.waits_for_first && !arrived.started()) return status;
    if (!may_retry || Clock::now() - arrived.last_event() > options_.patience) return status;
    const bool had_events = arrived.last_event() > began;
    if (had_events) {
      pause = options_.first_pause;
      told = false;
    }
    if (options_.on_loss && !std::exchange(told, true)) options_.on_loss(status);
    if (!Pause(pause)) return absl::CancelledError("cancelled while no server answered");
    pause = std::min(2 * pause, kLongestPause);
    // No less than the caller itself has already.
    if (arrived.started()) attempt.mutable_session()->set_resume_from(arrived.next());
  }
}

bool ResumingBackend::Pause(std::chrono::milliseconds duration) {
  std::unique_lock lock(mu_);
  return !woken_.wait_for(lock, duration, [this] { return cancelled_; });
}

void ResumingBackend::Cancel() {
  {
    std::lock_guard lock(mu_);
    cancelled_ = true;
  }
  woken_.notify_all();
  inner_->Cancel();
}

void ResumingBackend::ForgetCancel() {
  {
    std::lock_guard lock(mu_);
    cancelled_ = false;
  }
  inner_->ForgetCancel();
}

}  // namespace statehouse::cli
