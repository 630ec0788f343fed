#include "clients/cli/resuming_backend.h"

#include <algorithm>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"

namespace statehouse::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kLongestPause{5000};

// What a proxy or a dying connection makes of a lost server, beside UNAVAILABLE.
bool IsBrokenStream(const absl::Status& status) {
  const std::string message(status.message());
  return (absl::IsInternal(status) || absl::IsUnknown(status)) &&
         (message.find("RST_STREAM") != std::string::npos || message.find("Stream removed") != std::string::npos);
}

// What has arrived of an answer, over all attempts.
class Arrived {
 public:
  Arrived(bool wants_token_ids, const GenerateBackend::OnEvent& on_event)
      : wants_token_ids_(wants_token_ids), on_event_(on_event) {}

  void Take(const v1::GenerateEvent& event) {
    last_event_ = Clock::now();
    if (event.has_started()) {
      if (std::exchange(started_, true)) return;
      next_ = event.started().session_position() + event.started().prompt_tokens();
    }
    if (event.has_finished() && std::exchange(finished_, true)) return;
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
  Clock::time_point last_event() const { return last_event_; }

 private:
  const bool wants_token_ids_;
  const GenerateBackend::OnEvent& on_event_;
  bool started_ = false;
  bool finished_ = false;
  int64_t next_ = 0;  // position of the token to come
  Clock::time_point last_event_ = Clock::now();
};

}  // namespace

std::string NewIdempotencyKey() {
  std::random_device device;
  std::string key;
  for (int i = 0; i < 4; ++i) key += absl::StrFormat("%08x", device());
  return key;
}

ResumingBackend::ResumingBackend(GenerateBackend* inner, Options options)
    : inner_(inner), options_(std::move(options)) {}

absl::Status ResumingBackend::Generate(const v1::GenerateRequest& request, const OnEvent& on_event) {
  if (!request.has_session()) return inner_->Generate(request, on_event);
  v1::GenerateRequest attempt = request;
  if (attempt.session().idempotency_key().empty()) {
    attempt.mutable_session()->set_idempotency_key(NewIdempotencyKey());
  }
  attempt.set_return_token_ids(true);  // their number is the position to go on from
  Arrived arrived(!request.has_return_token_ids() || request.return_token_ids(), on_event);
  std::chrono::milliseconds pause = options_.first_pause;
  bool was_lost = false, told = false;
  while (true) {
    const Clock::time_point began = Clock::now();
    const absl::Status status = inner_->Generate(attempt, [&](const v1::GenerateEvent& event) { arrived.Take(event); });
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
