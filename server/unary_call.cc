#include "server/unary_call.h"

#include <string>
#include <utility>

#include "server/call_record.h"

namespace statehouse {
namespace {

struct Call : CallRecord {
  grpc::ServerUnaryReactor* reactor;

  void Finish(const absl::Status& status) const { reactor->Finish(Conclude(status)); }
};

}  // namespace

grpc::ServerUnaryReactor* UnaryCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                                    const char* method, const UnaryAnswer& answer) {
  Call call{{environment, method}, context->DefaultReactor()};
  const absl::Status status = ReadCallInfo(context, *environment->auth, &call.info);
  call.Finish(status.ok() ? answer(call.info) : status);
  return call.reactor;
}

grpc::ServerUnaryReactor* QueuedCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                                     const char* method, int64_t bytes, UnaryAnswer answer, WorkQueue* queue) {
  Call call{{environment, method}, context->DefaultReactor()};
  absl::Status status = ReadCallInfo(context, *environment->auth, &call.info);
  if (status.ok()) {
    const auto work = [context, info = call.info, answer = std::move(answer)]() -> absl::Status {
      if (context->IsCancelled()) return absl::CancelledError("the client went away before the call was answered");
      return answer(info);
    };
    if (queue == nullptr) queue = environment->work;
    status = queue->Post(
        bytes, work, [call](const absl::Status& answered) { call.Finish(answered); }, call.info.principal);
  }
  if (!status.ok()) call.Finish(status);
  return call.reactor;
}

}  // namespace statehouse
