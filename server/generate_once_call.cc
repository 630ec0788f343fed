#include "server/generate_once_call.h"

#include <utility>

namespace statehouse {

grpc::ServerUnaryReactor* GenerateOnceCall::Start(const CallEnvironment* environment,
                                                  grpc::CallbackServerContext* context,
                                                  const v1::GenerateRequest* request, v1::GenerateResponse* response) {
  auto call = std::make_shared<GenerateOnceCall>(environment, request, response);
  GenerateOnceCall* const reactor = call.get();
  std::lock_guard<std::mutex> lock(call->mu_);
  call->self_ = call;
  if (absl::Status status = call->run_.Identify(context); !status.ok()) {
    call->FinishLocked(status);
  } else {
    environment->work->Post([call] { call->Submit(); });
  }
  return reactor;
}

GenerateOnceCall::GenerateOnceCall(const CallEnvironment* environment, const v1::GenerateRequest* request,
                                   v1::GenerateResponse* response)
    : environment_(environment), request_(request), response_(response), run_(environment, "GenerateOnce") {}

void GenerateOnceCall::Submit() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (cancelled_) return FinishLocked(absl::CancelledError("the client went away before the request was queued"));
  }
  const absl::Status status = run_.Submit(*request_, this);
  std::lock_guard<std::mutex> lock(mu_);
  if (!status.ok()) return FinishLocked(status);
  submitted_ = true;
  if (cancelled_) run_.Cancel();
  AdvanceLocked();
}

void GenerateOnceCall::AdvanceLocked() {
  if (!submitted_ || finished_) return;
  v1::GenerateEvent event;
  while (true) {
    const EventConverter::Result result = run_.Take(&event);
    if (result == EventConverter::Result::kNothing) return;
    Fold(event, response_);
    if (result == EventConverter::Result::kDone) return FinishLocked(run_.status());
  }
}

void GenerateOnceCall::FinishLocked(const absl::Status& status) {
  finished_ = true;
  Finish(run_.Conclude(status));
}

void GenerateOnceCall::OnCancel() {
  std::lock_guard<std::mutex> lock(mu_);
  cancelled_ = true;
  if (submitted_) run_.Cancel();
}

void GenerateOnceCall::OnDone() {
  run_.Detach();
  const std::shared_ptr<GenerateOnceCall> last = std::move(self_);
}

void GenerateOnceCall::OnEvents() { environment_->pump->Wake(this); }

void GenerateOnceCall::OnReady() {
  std::lock_guard<std::mutex> lock(mu_);
  AdvanceLocked();
}

}  // namespace statehouse
