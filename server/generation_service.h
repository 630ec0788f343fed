// The wire's Generation service. Thread-safety: any thread, as gRPC calls it.
#pragma once

#include "server/call_environment.h"
#include "statehouse/v1/generation.grpc.pb.h"

namespace statehouse {

class GenerationService final : public v1::Generation::CallbackService {
 public:
  // `environment` must outlive all calls.
  explicit GenerationService(const CallEnvironment* environment) : environment_(environment) {}

  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(grpc::CallbackServerContext* context,
                                                        const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* GenerateOnce(grpc::CallbackServerContext* context, const v1::GenerateRequest* request,
                                         v1::GenerateResponse* response) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context, const v1::CancelRequest* request,
                                   v1::CancelResponse* response) override;

 private:
  const CallEnvironment* const environment_;
};

}  // namespace statehouse
