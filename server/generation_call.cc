#include "server/generation_call.h"

#include <algorithm>
#include <utility>

namespace statehouse {
namespace {

// A write that takes longer has met a reader that is behind.
constexpr absl::Duration kSlowWrite = absl::Milliseconds(100);
// Where a call with the same idempotency key waits for this one, which nobody reads any more, most likely.
constexpr absl::Duration kSupersededWrite = absl::Seconds(1);
// A large message gets the stuck-write timeout once more for each of these.
constexpr int64_t kBytesPerTimeout = 1 << 20;

}  // namespace

GenerationCall::GenerationCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                               const v1::GenerateRequest* request, const char* method)
    : environment_(environment), context_(context), request_(request), run_(environment, method) {}

void GenerationCall::Begin() {
  std::lock_guard<std::mutex> lock(mu_);
  self_ = shared_from_this();
  environment_->pump->Add(self_);
  absl::Status status = run_.Identify(context_);
  if (status.ok()) {
    WorkQueue* const queue = request_->has_session() ? environment_->session_work : environment_->work;
    status = queue->Post(
        static_cast<int64_t>(request_->ByteSizeLong()), [this, self = self_] { return Submit(); },
        [this, self = self_](const absl::Status& submitted) { Submitted(submitted); }, run_.principal());
  }
  if (!status.ok()) FinishLocked(status);
}

absl::Status GenerationCall::Submit() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (client_left_) return absl::CancelledError("the client went away before the request was queued");
  }
  // Without the lock: tokenising may take long, and nothing else touches run_ until submitted_ is set.
  if (absl::Status status = run_.Prepare(*request_); !status.ok()) return status;
  submits_again_ = run_.may_block();
  return submits_again_ ? absl::OkStatus() : run_.Submit(*request_, this);
}

absl::Status GenerationCall::SubmitWhereItMayBlock() {
  return environment_->session_work->Post(
      static_cast<int64_t>(request_->ByteSizeLong()),
      [this, self = self_] {
        {
          std::lock_guard<std::mutex> lock(mu_);
          if (client_left_) return absl::CancelledError("the client went away before the request was submitted");
        }
        return run_.Submit(*request_, this);
      },
      [this, self = self_](const absl::Status& submitted) { Submitted(submitted); }, run_.principal());
}

void GenerationCall::Submitted(const absl::Status& prepared) {
  std::lock_guard<std::mutex> lock(mu_);
  absl::Status status = prepared;
  if (status.ok() && std::exchange(submits_again_, false)) {
    status = SubmitWhereItMayBlock();
    if (status.ok()) return;
  }
  if (!status.ok()) {
    run_.Cancel();
    return FinishLocked(status);
  }
  submitted_ = true;
  if (client_left_) run_.Cancel();
  AdvanceLocked();
}

void GenerationCall::AdvanceLocked() {
  if (!submitted_ || writing_ || settling_ || finished_) return;
  while (true) {
    switch (run_.Take(&event_)) {
      case EventConverter::Result::kNothing:
        return;
      case EventConverter::Result::kEvent:
        if (client_left_ || !failure_.ok()) continue;  // nobody reads; go on to the end for usage and log
        if (!PassOn(&event_)) continue;
        writing_ = true;
        waiting_since_ = absl::Now();
        return;
      case EventConverter::Result::kDone:
        return EndLocked(failure_.ok() ? run_.status() : failure_);
    }
  }
}

void GenerationCall::Fail(const absl::Status& status) {
  failure_ = status;
  run_.Cancel();
}

void GenerationCall::EndLocked(const absl::Status& status) {
  if (!run_.needs_settling()) return FinishLocked(status);
  settling_ = true;
  const absl::Status posted = environment_->settling->Post(
      /*bytes=*/0, [this, self = shared_from_this(), status, lost = client_lost_] { return run_.Settle(status, lost); },
      [this, self = shared_from_this()](const absl::Status& settled) {
        std::lock_guard<std::mutex> lock(mu_);
        settling_ = false;
        if (const v1::SessionOutcome* outcome = run_.session(); event_.has_done()) {
          *event_.mutable_done()->mutable_session() = *outcome;
          *event_.mutable_done()->mutable_cache() = *run_.cache();
        }
        FinishLocked(settled);
      },
      run_.principal());
  if (!posted.ok()) FinishLocked(posted);  // the queue has no bounds
}

void GenerationCall::FinishLocked(const absl::Status& status) {
  finished_ = true;
  waiting_since_ = absl::Now();
  grpc::Status wire_status = run_.Conclude(status);
  if (!wire_status.ok() && run_.session() != nullptr) {
    context_->AddTrailingMetadata("statehouse-session-outcome-bin", run_.session()->SerializeAsString());
  }
  const bool has_answer = wire_status.ok() && !client_left_;
  End(std::move(wire_status), has_answer ? &event_ : nullptr);
}

void GenerationCall::WriteEnded(bool is_ok) {
  std::lock_guard<std::mutex> lock(mu_);
  writing_ = false;
  if (absl::Now() - waiting_since_ > kSlowWrite) run_.ReaderWasSlow();
  if (is_ok) run_.Delivered();
  if (!is_ok) ClientLeftLocked();
  AdvanceLocked();
}

void GenerationCall::ClientLeft() {
  std::lock_guard<std::mutex> lock(mu_);
  ClientLeftLocked();
}

void GenerationCall::ClientLeftLocked() {
  if (std::exchange(client_left_, true)) return;
  client_lost_ = !submitted_ || !run_.is_cancelled();
  if (submitted_) run_.Cancel();
}

void GenerationCall::LetGo() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    gone_ = true;
  }
  run_.Detach();
  environment_->pump->Remove(this);
  const std::shared_ptr<Client> last = std::move(self_);
}

void GenerationCall::OnEvents() { environment_->pump->Wake(this); }

void GenerationCall::OnReady() {
  std::lock_guard<std::mutex> lock(mu_);
  AdvanceLocked();
}

void GenerationCall::OnTick() {
  std::lock_guard<std::mutex> lock(mu_);
  if (gone_ || !(writing_ || finished_)) return;
  const absl::Duration waited = absl::Now() - waiting_since_;
  // While a write is under way, nothing else uses run_.
  const bool is_superseded = writing_ && run_.is_superseded();
  const absl::Duration patience = is_superseded
                                      ? std::min(kSupersededWrite, environment_->stuck_write_timeout)
                                      : environment_->stuck_write_timeout * (1 + MessageBytes() / kBytesPerTimeout);
  if (waited > patience) context_->TryCancel();
}

}  // namespace statehouse
