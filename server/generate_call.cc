#include "server/generate_call.h"

#include <utility>

namespace statehouse {

grpc::ServerWriteReactor<v1::GenerateEvent>* GenerateCall::Start(const CallEnvironment* environment,
                                                                 grpc::CallbackServerContext* context,
                                                                 const v1::GenerateRequest* request) {
  auto call = std::make_shared<GenerateCall>(environment, context, request);
  GenerateCall* const reactor = call.get();
  std::lock_guard<std::mutex> lock(call->mu_);
  call->self_ = call;
  if (absl::Status status = call->run_.Identify(context); !status.ok()) {
    call->FinishLocked(status);
  } else {
    environment->pump->Add(call);
    environment->work->Post([call] { call->Submit(); });
  }
  return reactor;
}

GenerateCall::GenerateCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                           const v1::GenerateRequest* request)
    : environment_(environment), context_(context), request_(request), run_(environment, "Generate") {}

void GenerateCall::Submit() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (cancelled_) return FinishLocked(absl::CancelledError("the client went away before the request was queued"));
  }
  // Without the lock: tokenising may take long, and nothing else touches run_ until submitted_ is set.
  const absl::Status status = run_.Submit(*request_, this);
  std::lock_guard<std::mutex> lock(mu_);
  if (!status.ok()) return FinishLocked(status);
  submitted_ = true;
  if (cancelled_) run_.Cancel();
  AdvanceLocked();
}

void GenerateCall::AdvanceLocked() {
  if (!submitted_ || writing_ || finished_) return;
  while (true) {
    switch (run_.Take(&event_)) {
      case EventConverter::Result::kNothing:
        return;
      case EventConverter::Result::kEvent:
        if (cancelled_) continue;  // nobody reads; go on to the end for usage and log
        writing_ = true;
        write_start_ = absl::Now();
        StartWrite(&event_);
        return;
      case EventConverter::Result::kDone:
        return FinishLocked(run_.status());
    }
  }
}

void GenerateCall::FinishLocked(const absl::Status& status) {
  finished_ = true;
  grpc::Status wire_status = run_.Conclude(status);
  if (status.ok() && !cancelled_) {
    StartWriteAndFinish(&event_, grpc::WriteOptions(), std::move(wire_status));  // Done
  } else {
    Finish(std::move(wire_status));
  }
}

void GenerateCall::OnWriteDone(bool ok) {
  std::lock_guard<std::mutex> lock(mu_);
  writing_ = false;
  if (!ok && !cancelled_) {
    cancelled_ = true;
    if (submitted_) run_.Cancel();
  }
  AdvanceLocked();
}

void GenerateCall::OnCancel() {
  std::lock_guard<std::mutex> lock(mu_);
  cancelled_ = true;
  if (submitted_) run_.Cancel();
}

void GenerateCall::OnDone() {
  run_.Detach();
  environment_->pump->Remove(this);
  const std::shared_ptr<GenerateCall> last = std::move(self_);
}

void GenerateCall::OnEvents() { environment_->pump->Wake(this); }

void GenerateCall::OnReady() {
  std::lock_guard<std::mutex> lock(mu_);
  AdvanceLocked();
}

void GenerateCall::OnTick() {
  std::lock_guard<std::mutex> lock(mu_);
  if (writing_ && !finished_ && absl::Now() - write_start_ > environment_->stuck_write_timeout) context_->TryCancel();
}

}  // namespace statehouse
