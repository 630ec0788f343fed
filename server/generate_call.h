// Generation.Generate: one streaming call.
//
// Life: Start() → Submit() on the work queue → Advance() whenever events arrive or a write ends → Finish() → OnDone(),
// which lets go of the last reference. At most one write is in flight; events that wait meanwhile stay in the engine's
// bounded queue, so a slow reader costs one message of memory here. Thread-safety: callbacks come from several threads;
// mu_ orders them.
#pragma once

#include <memory>
#include <mutex>

#include "absl/time/time.h"
#include "engine/event_stream.h"
#include "grpcpp/support/server_callback.h"
#include "server/event_pump.h"
#include "server/generation_run.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse {

class GenerateCall final : public grpc::ServerWriteReactor<v1::GenerateEvent>,
                           public EventPump::Client,
                           private EventStream::Listener {
 public:
  // The reactor belongs to itself until OnDone().
  static grpc::ServerWriteReactor<v1::GenerateEvent>* Start(const CallEnvironment* environment,
                                                            grpc::CallbackServerContext* context,
                                                            const v1::GenerateRequest* request);
  GenerateCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
               const v1::GenerateRequest* request);

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void OnReady() override;   // pump
  void OnTick() override;    // pump
  void OnEvents() override;  // engine thread

  void Submit();
  void AdvanceLocked();
  void FinishLocked(const absl::Status& status);

  const CallEnvironment* const environment_;
  grpc::CallbackServerContext* const context_;
  const v1::GenerateRequest* const request_;  // valid until Finish()
  std::shared_ptr<GenerateCall> self_;        // dropped in OnDone()

  std::mutex mu_;
  GenerationRun run_;        // guarded by mu_ once submitted, as all below
  v1::GenerateEvent event_;  // the write in flight
  bool submitted_ = false;
  bool cancelled_ = false;  // the client went away: nothing is written any more
  bool writing_ = false;
  bool finished_ = false;
  absl::Time write_start_;
};

}  // namespace statehouse
