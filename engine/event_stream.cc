#include "engine/event_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

absl::Status Describe(const Ending& ending) {
  const std::string progress =
      ending.completion_tokens > 0 || ending.prompt_tokens_done >= ending.prompt_tokens
          ? absl::StrCat("after ", ending.completion_tokens, " generated tokens, at position ", ending.position)
          : absl::StrCat("after ", ending.prompt_tokens_done, " of ", ending.prompt_tokens, " prompt tokens");
  switch (ending.why) {
    case Ending::Why::kFinished:
      return absl::OkStatus();
    case Ending::Why::kCancelled:
      return absl::CancelledError(absl::StrCat("cancelled ", progress));
    case Ending::Why::kShutDown:
      return absl::CancelledError(absl::StrCat("the engine was shut down ", progress));
    case Ending::Why::kDeadline:
      return absl::DeadlineExceededError(
          absl::StrCat("the request's deadline passed ", progress, "; allow more time or ask for fewer tokens"));
    case Ending::Why::kSlowReader:
      return absl::DeadlineExceededError(absl::StrCat("the events were not read for ",
                                                      absl::FormatDuration(ending.timeout), "; the request ended ",
                                                      progress, "; read the stream faster"));
    case Ending::Why::kNoNumber:
      return absl::InternalError(absl::StrCat("the model's logits are not numbers ", progress,
                                              "; its weights overflow in this data type, or the checkpoint is broken"));
  }
  return absl::InternalError("unknown ending");
}

FinishReason ReasonOf(Ending::Why why) {
  switch (why) {
    case Ending::Why::kFinished:
      return FinishReason::kNone;
    case Ending::Why::kCancelled:
    case Ending::Why::kShutDown:
      return FinishReason::kCancelled;
    case Ending::Why::kDeadline:
    case Ending::Why::kSlowReader:
      return FinishReason::kDeadline;
    case Ending::Why::kNoNumber:
      return FinishReason::kError;
  }
  return FinishReason::kError;
}

}  // namespace

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  return "unknown";
}

EventStream::EventStream(std::string request_id, int32_t n, int64_t capacity, std::shared_ptr<Waker> waker)
    : request_id_(std::move(request_id)), n_(n), waker_(std::move(waker)), ring_(capacity + n + 1) {}

bool EventStream::TryNext(Event* event) {
  const int64_t head = head_.load(std::memory_order_relaxed);
  if (head == tail_.load(std::memory_order_acquire)) return false;
  *event = ring_[head % static_cast<int64_t>(ring_.size())];
  done_taken_ = done_taken_ || event->kind == Event::Kind::kDone;
  // Sequentially consistent, as in HasRoomOrWake(): either the engine sees the new head or this thread sees its wish.
  head_.store(head + 1, std::memory_order_seq_cst);
  if (wants_room_.load(std::memory_order_seq_cst) && wants_room_.exchange(false) && waker_ != nullptr) waker_->Wake();
  return true;
}

bool EventStream::Next(Event* event, absl::Time until) {
  if (TryNext(event)) return true;
  if (done_taken_) return false;
  std::unique_lock<std::mutex> lock(mu_);
  const auto waiting = [this] {
    return head_.load(std::memory_order_relaxed) != tail_.load(std::memory_order_acquire);
  };
  if (until == absl::InfiniteFuture()) {
    arrived_.wait(lock, waiting);
  } else if (!arrived_.wait_until(lock, absl::ToChronoTime(until), waiting)) {
    return false;
  }
  lock.unlock();
  return TryNext(event);
}

absl::Status EventStream::status() const {
  std::lock_guard<std::mutex> lock(mu_);
  return status_.ok() ? Describe(ending_) : status_;
}

Usage EventStream::usage() const {
  std::lock_guard<std::mutex> lock(mu_);
  return usage_;
}

Timings EventStream::timings() const {
  std::lock_guard<std::mutex> lock(mu_);
  return timings_;
}

void EventStream::SetListener(Listener* listener) {
  std::lock_guard<std::mutex> lock(listener_mu_);
  listener_ = listener;
}

void EventStream::Cancel() {
  if (cancelled_.exchange(true, std::memory_order_acq_rel)) return;
  if (waker_ != nullptr) waker_->WakeForCancel();
}

int64_t EventStream::room() const {
  const int64_t used = tail_.load(std::memory_order_relaxed) - head_.load(std::memory_order_acquire);
  return static_cast<int64_t>(ring_.size()) - (n_ + 1) - used;
}

bool EventStream::HasRoomOrWake(int64_t needed) {
  if (room() >= needed) return true;
  wants_room_.store(true, std::memory_order_seq_cst);
  const int64_t used = tail_.load(std::memory_order_relaxed) - head_.load(std::memory_order_seq_cst);
  return static_cast<int64_t>(ring_.size()) - (n_ + 1) - used >= needed;
}

void EventStream::Push(const Event& event) {
  const int64_t tail = tail_.load(std::memory_order_relaxed);
  ring_[tail % static_cast<int64_t>(ring_.size())] = event;
  tail_.store(tail + 1, std::memory_order_release);
  dirty_ = true;
}

void EventStream::ExpectPush() const {
  constexpr size_t kLine = 64;
  const int64_t tail = tail_.load(std::memory_order_relaxed);
  const char* const place = reinterpret_cast<const char*>(&ring_[tail % static_cast<int64_t>(ring_.size())]);
  for (size_t at = 0; at < sizeof(Event); at += kLine) __builtin_prefetch(place + at, /*for writing*/ 1);
}

void EventStream::Finish(const Ending& ending, const Usage& usage, const Timings& timings) {
  {
    std::lock_guard<std::mutex> lock(mu_);
    ending_ = ending;
    usage_ = usage;
    timings_ = timings;
  }
  PushDone(ReasonOf(ending.why));
}

void EventStream::Finish(absl::Status status, const Usage& usage, const Timings& timings) {
  const FinishReason reason = status.ok() ? FinishReason::kNone : FinishReason::kError;
  {
    std::lock_guard<std::mutex> lock(mu_);
    status_ = std::move(status);
    usage_ = usage;
    timings_ = timings;
  }
  PushDone(reason);
}

void EventStream::PushDone(FinishReason reason) {
  Event event;
  event.kind = Event::Kind::kDone;
  event.reason = reason;
  Push(event);
}

void EventStream::NotifyListener() {
  if (!dirty_) return;
  dirty_ = false;
  {
    // Empty on purpose: a consumer between its check and its wait holds the mutex, so it cannot miss the signal.
    std::lock_guard<std::mutex> lock(mu_);
  }
  arrived_.notify_all();
  std::lock_guard<std::mutex> lock(listener_mu_);
  if (listener_ != nullptr) listener_->OnEvents();
}

}  // namespace statehouse
