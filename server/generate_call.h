// Generation.Generate: one streaming call; generation_call.h says how it lives.
#pragma once

#include "grpcpp/support/server_callback.h"
#include "server/generation_call.h"

namespace statehouse {

class GenerateCall final : public grpc::ServerWriteReactor<v1::GenerateEvent>, public GenerationCall {
 public:
  // The reactor belongs to itself until OnDone().
  static grpc::ServerWriteReactor<v1::GenerateEvent>* Start(const CallEnvironment* environment,
                                                            grpc::CallbackServerContext* context,
                                                            const v1::GenerateRequest* request);

 private:
  GenerateCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
               const v1::GenerateRequest* request)
      : GenerationCall(environment, context, request, "Generate") {}

  void OnWriteDone(bool is_ok) override { WriteEnded(is_ok); }
  void OnCancel() override { ClientLeft(); }
  void OnDone() override { LetGo(); }

  bool PassOn(v1::GenerateEvent* event) override;
  void End(grpc::Status status, v1::GenerateEvent* done) override;
  int64_t MessageBytes() const override { return static_cast<int64_t>(event_.ByteSizeLong()); }
};

}  // namespace statehouse
