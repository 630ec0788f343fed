#include "server/generate_call.h"

#include <memory>
#include <utility>

namespace statehouse {

grpc::ServerWriteReactor<v1::GenerateEvent>* GenerateCall::Start(const CallEnvironment* environment,
                                                                 grpc::CallbackServerContext* context,
                                                                 const v1::GenerateRequest* request) {
  const std::shared_ptr<GenerateCall> call(new GenerateCall(environment, context, request));
  call->Begin();
  return call.get();
}

bool GenerateCall::PassOn(v1::GenerateEvent* event) {
  StartWrite(event);
  return true;
}

void GenerateCall::End(grpc::Status status, v1::GenerateEvent* done) {
  if (done != nullptr) {
    StartWriteAndFinish(done, grpc::WriteOptions(), std::move(status));
  } else {
    Finish(std::move(status));
  }
}

}  // namespace statehouse
