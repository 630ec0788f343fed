// Generation.GenerateOnce: the events of a run, folded into one answer; generation_call.h says how it lives.
#pragma once

#include "grpcpp/support/server_callback.h"
#include "server/generation_call.h"

namespace statehouse {

class GenerateOnceCall final : public grpc::ServerUnaryReactor, public GenerationCall {
 public:
  // The reactor belongs to itself until OnDone().
  static grpc::ServerUnaryReactor* Start(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                                         const v1::GenerateRequest* request, v1::GenerateResponse* response);

 private:
  GenerateOnceCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                   const v1::GenerateRequest* request, v1::GenerateResponse* response)
      : GenerationCall(environment, context, request, "GenerateOnce"), response_(response) {}

  void OnCancel() override { ClientLeft(); }
  void OnDone() override { LetGo(); }

  bool PassOn(v1::GenerateEvent* event) override;
  void End(grpc::Status status, v1::GenerateEvent* done) override;
  int64_t MessageBytes() const override { return bytes_; }

  v1::GenerateResponse* const response_;  // valid until Finish()
  int64_t bytes_ = 0;                     // of response_ on the wire, nearly: those of the events in it
};

}  // namespace statehouse
