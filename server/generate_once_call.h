// Generation.GenerateOnce: the events of a run, folded into one answer. Life and threads as in generate_call.h.
#pragma once

#include <memory>
#include <mutex>

#include "engine/event_stream.h"
#include "grpcpp/support/server_callback.h"
#include "server/event_pump.h"
#include "server/generation_run.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse {

class GenerateOnceCall final : public grpc::ServerUnaryReactor,
                               public EventPump::Client,
                               private EventStream::Listener {
 public:
  // The reactor belongs to itself until OnDone().
  static grpc::ServerUnaryReactor* Start(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                                         const v1::GenerateRequest* request, v1::GenerateResponse* response);
  GenerateOnceCall(const CallEnvironment* environment, const v1::GenerateRequest* request,
                   v1::GenerateResponse* response);

 private:
  void OnCancel() override;
  void OnDone() override;
  void OnReady() override;   // pump
  void OnEvents() override;  // engine thread

  void Submit();
  void AdvanceLocked();
  void FinishLocked(const absl::Status& status);

  const CallEnvironment* const environment_;
  const v1::GenerateRequest* const request_;  // valid until Finish(), as is response_
  v1::GenerateResponse* const response_;
  std::shared_ptr<GenerateOnceCall> self_;  // dropped in OnDone()

  std::mutex mu_;
  GenerationRun run_;  // guarded by mu_ once submitted, as all below
  bool submitted_ = false;
  bool cancelled_ = false;
  bool finished_ = false;
};

}  // namespace statehouse
