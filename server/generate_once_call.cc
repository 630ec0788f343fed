#include "server/generate_once_call.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

namespace statehouse {

grpc::ServerUnaryReactor* GenerateOnceCall::Start(const CallEnvironment* environment,
                                                  grpc::CallbackServerContext* context,
                                                  const v1::GenerateRequest* request, v1::GenerateResponse* response) {
  const std::shared_ptr<GenerateOnceCall> call(new GenerateOnceCall(environment, context, request, response));
  call->Begin();
  return call.get();
}

bool GenerateOnceCall::PassOn(v1::GenerateEvent* event) {
  bytes_ += static_cast<int64_t>(event->ByteSizeLong());
  if (bytes_ > environment_->max_message_bytes) {
    response_->Clear();
    Fail(absl::ResourceExhaustedError(
        absl::StrCat("the answer is larger than a message may be, ", environment_->max_message_bytes,
                     " bytes (--max-message-bytes); use Generate, which sends it in pieces, or ask for less")));
  } else {
    Fold(*event, response_);
  }
  return false;
}

void GenerateOnceCall::End(grpc::Status status, v1::GenerateEvent* done) {
  if (done != nullptr) Fold(*done, response_);
  Finish(std::move(status));
}

}  // namespace statehouse
