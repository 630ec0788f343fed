// A call with one answer that some function computes: identity is checked first, a log line and a count come last.
// Thread-safety: any thread, as gRPC calls it.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/call_environment.h"
#include "server/call_info.h"

namespace statehouse {

using UnaryAnswer = std::function<absl::Status(const CallInfo&)>;

// `answer` fills the response that it captured, at once and on gRPC's own thread: it must not block. `method` names the
// call in log and metrics.
grpc::ServerUnaryReactor* UnaryCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                                    const char* method, const UnaryAnswer& answer);
// The same for an answer that may take long: it runs on the work queue, unless the client has gone away meanwhile.
// `bytes` is the request's size. `queue`: another one than the environment's `work`.
grpc::ServerUnaryReactor* QueuedCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                                     const char* method, int64_t bytes, UnaryAnswer answer, WorkQueue* queue = nullptr);

}  // namespace statehouse
