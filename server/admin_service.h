// The wire's Admin service: GetStatus answers also while the model loads. Thread-safety: any thread, as gRPC calls it.
#pragma once

#include "absl/time/clock.h"
#include "server/call_environment.h"
#include "statehouse/v1/admin.grpc.pb.h"

namespace statehouse {

class AdminService final : public v1::Admin::CallbackService {
 public:
  // `environment` must outlive all calls.
  explicit AdminService(const CallEnvironment* environment) : environment_(environment) {}

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;

 private:
  void Fill(v1::GetStatusResponse* response) const;

  const CallEnvironment* const environment_;
  const absl::Time start_ = absl::Now();
};

}  // namespace statehouse
