// Requests whose bytes are no message of their type (a string that is not UTF-8, say): gRPC ends such a call before any
// code of ours sees it, as UNIMPLEMENTED without a word, and libprotobuf writes to standard error.
#pragma once

#include <memory>
#include <vector>

#include "grpcpp/support/server_interceptor.h"
#include "server/call_environment.h"
#include "server/log.h"

namespace statehouse {

// While it lives, what libprotobuf has to say goes to `log`, which must outlive it; of several, to the newest one's.
// Thread-safety: any thread.
class ProtobufLog {
 public:
  explicit ProtobufLog(Log* log);
  ~ProtobufLog();
  ProtobufLog(const ProtobufLog&) = delete;
  ProtobufLog& operator=(const ProtobufLog&) = delete;

 private:
  Log* const log_;
};

// Ends such calls with INVALID_ARGUMENT, and counts and logs them. `environment` must outlive the server.
std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> AnswerUnreadableRequests(
    const CallEnvironment* environment);

}  // namespace statehouse
