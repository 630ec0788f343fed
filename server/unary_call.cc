#include "server/unary_call.h"

#include <string>
#include <utility>

#include "server/status.h"

namespace statehouse {
namespace {

struct Call {
  const CallEnvironment* environment;
  grpc::CallbackServerContext* context;
  grpc::ServerUnaryReactor* reactor;
  const char* method;
  absl::Time start = absl::Now();
  CallInfo info = {};

  void Finish(const absl::Status& status) const {
    environment->metrics->CountCall(method, absl::StatusCodeToString(status.code()));
    Log::Fields fields = {{"id", info.request_id},
                          {"principal", info.principal},
                          {"method", std::string(method)},
                          {"status", absl::StatusCodeToString(status.code())},
                          {"total_ms", absl::ToDoubleMilliseconds(absl::Now() - start)}};
    AddError(status, environment->log_prompts, &fields);
    environment->log->Info("request", fields);
    reactor->Finish(ToGrpcStatus(status));
  }
};

}  // namespace

grpc::ServerUnaryReactor* UnaryCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                                    const char* method, const UnaryAnswer& answer) {
  Call call{environment, context, context->DefaultReactor(), method};
  const absl::Status status = ReadCallInfo(context, *environment->auth, &call.info);
  call.Finish(status.ok() ? answer(call.info) : status);
  return call.reactor;
}

grpc::ServerUnaryReactor* QueuedCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                                     const char* method, int64_t bytes, UnaryAnswer answer) {
  Call call{environment, context, context->DefaultReactor(), method};
  absl::Status status = ReadCallInfo(context, *environment->auth, &call.info);
  if (status.ok()) {
    const auto work = [context, info = call.info, answer = std::move(answer)]() -> absl::Status {
      if (context->IsCancelled()) return absl::CancelledError("the client went away before the call was answered");
      return answer(info);
    };
    status = environment->work->Post(bytes, work, [call](const absl::Status& answered) { call.Finish(answered); });
  }
  if (!status.ok()) call.Finish(status);
  return call.reactor;
}

}  // namespace statehouse
