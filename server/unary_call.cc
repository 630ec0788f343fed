#include "server/unary_call.h"

#include <string>
#include <utility>

#include "server/status.h"

namespace statehouse {

grpc::ServerUnaryReactor* UnaryCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                                    const char* method, std::function<absl::Status(const CallInfo&)> answer) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto finish = [=](const absl::Status& status) {
    environment->metrics->CountCall(method, absl::StatusCodeToString(status.code()));
    reactor->Finish(ToGrpcStatus(status));
  };
  CallInfo info;
  if (absl::Status status = ReadCallInfo(context, *environment->auth, &info); !status.ok()) {
    finish(status);
  } else {
    environment->work->Post([info = std::move(info), answer = std::move(answer), finish] { finish(answer(info)); });
  }
  return reactor;
}

}  // namespace statehouse
