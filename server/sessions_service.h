// The wire's Sessions service. Thread-safety: any thread, as gRPC calls it.
#pragma once

#include <atomic>
#include <cstdint>

#include "server/call_environment.h"
#include "server/call_info.h"
#include "statehouse/v1/sessions.grpc.pb.h"

namespace statehouse {

class SessionsService final : public v1::Sessions::CallbackService {
 public:
  // `environment` must outlive all calls.
  explicit SessionsService(const CallEnvironment* environment) : environment_(environment) {}

  grpc::ServerUnaryReactor* Create(grpc::CallbackServerContext* context, const v1::CreateSessionRequest* request,
                                   v1::Session* response) override;
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context, const v1::GetSessionRequest* request,
                                v1::GetSessionResponse* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context, const v1::ListSessionsRequest* request,
                                 v1::ListSessionsResponse* response) override;
  grpc::ServerUnaryReactor* Delete(grpc::CallbackServerContext* context, const v1::DeleteSessionRequest* request,
                                   v1::DeleteSessionResponse* response) override;
  grpc::ServerUnaryReactor* Fork(grpc::CallbackServerContext* context, const v1::ForkSessionRequest* request,
                                 v1::ForkSessionResponse* response) override;
  grpc::ServerUnaryReactor* Rewind(grpc::CallbackServerContext* context, const v1::RewindSessionRequest* request,
                                   v1::RewindSessionResponse* response) override;
  grpc::ServerWriteReactor<v1::RebuildSessionProgress>* Rebuild(grpc::CallbackServerContext* context,
                                                                const v1::RebuildSessionRequest* request) override;
  grpc::ServerWriteReactor<v1::ExportSessionPart>* Export(grpc::CallbackServerContext* context,
                                                          const v1::ExportSessionRequest* request) override;
  grpc::ServerReadReactor<v1::ImportSessionPart>* Import(grpc::CallbackServerContext* context,
                                                         v1::ImportSessionResponse* response) override;
  grpc::ServerUnaryReactor* ImportStatus(grpc::CallbackServerContext* context, const v1::ImportStatusRequest* request,
                                         v1::ImportStatusResponse* response) override;
  grpc::ServerUnaryReactor* Update(grpc::CallbackServerContext* context, const v1::UpdateSessionRequest* request,
                                   v1::Session* response) override;
  grpc::ServerUnaryReactor* BreakLease(grpc::CallbackServerContext* context, const v1::BreakLeaseRequest* request,
                                       v1::BreakLeaseResponse* response) override;
  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context, const v1::CheckSessionsRequest* request,
                                  v1::CheckSessionsResponse* response) override;
  grpc::ServerUnaryReactor* CollectGarbage(grpc::CallbackServerContext* context,
                                           const v1::CollectGarbageRequest* request,
                                           v1::CollectGarbageResponse* response) override;

 private:
  // A call that needs the store: `answer(model, info)` on the queue of what may block, or on that of what lasts.
  enum class Lasts { kBriefly, kLong };
  template <typename Answer>
  grpc::ServerUnaryReactor* Ask(grpc::CallbackServerContext* context, const char* method, int64_t bytes, Answer answer,
                                Lasts lasts = Lasts::kBriefly);
  bool IsOperator(const CallInfo& info) const { return environment_->operators.contains(info.principal); }

  const CallEnvironment* const environment_;
  std::atomic<bool> collecting_{false};  // garbage
};

}  // namespace statehouse
