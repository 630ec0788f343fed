// A call with one answer that some function computes: identity is checked first, the function runs on the work queue.
// Thread-safety: any thread, as gRPC calls it.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/call_environment.h"
#include "server/call_info.h"

namespace statehouse {

// `answer` fills the response that it captured. `method` names the call in the metrics.
grpc::ServerUnaryReactor* UnaryCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                                    const char* method, std::function<absl::Status(const CallInfo&)> answer);

}  // namespace statehouse
