// The wire's Models service. Thread-safety: any thread, as gRPC calls it.
#pragma once

#include "server/call_environment.h"
#include "statehouse/v1/models.grpc.pb.h"

namespace statehouse {

class ModelsService final : public v1::Models::CallbackService {
 public:
  // `environment` must outlive all calls.
  explicit ModelsService(const CallEnvironment* environment) : environment_(environment) {}

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;

 private:
  const CallEnvironment* const environment_;
};

}  // namespace statehouse
