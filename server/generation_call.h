// What Generate and GenerateOnce have in common: the life of a call around its GenerationRun.
//
// Life: Begin() → Submit() on the work queue (a prompt whose beginning lies on a disk then goes on to the queue of what
// may block, so that it holds up none whose does not) → events are passed on whenever some arrive or a write ends → the
// turn of a session is settled on a queue → Finish → the reactor's OnDone(), which lets go of the last reference.
// Events that wait for a write stay in the engine's bounded queue, so a slow reader costs one message of memory here. A
// message that the client does not take for too long, the last one included, ends the call. Thread-safety: callbacks
// come from several threads; mu_ orders them.
#pragma once

#include <memory>
#include <mutex>

#include "absl/time/time.h"
#include "engine/event_stream.h"
#include "grpcpp/server_context.h"
#include "server/event_pump.h"
#include "server/generation_run.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse {

class GenerationCall : public EventPump::Client, private EventStream::Listener {
 protected:
  // `method` as in GenerationRun.
  GenerationCall(const CallEnvironment* environment, grpc::CallbackServerContext* context,
                 const v1::GenerateRequest* request, const char* method);

  // Reads the call's metadata and queues it: once, by the service's method. REQUIRES: a shared_ptr holds this object,
  // which from then on belongs to itself until LetGo().
  void Begin();
  void ClientLeft();            // the reactor's OnCancel()
  void LetGo();                 // the reactor's OnDone()
  void WriteEnded(bool is_ok);  // of the write that PassOn() began

  // --- what each kind of call adds; mu_ is held ---
  // Passes an event on. True: a write of it has begun, so that nothing more may come before WriteEnded().
  virtual bool PassOn(v1::GenerateEvent* event) = 0;
  // Ends the call. `done` is the last event, null where the call failed or nobody reads.
  virtual void End(grpc::Status status, v1::GenerateEvent* done) = 0;
  // Of the message that is on its way.
  virtual int64_t MessageBytes() const = 0;

  // Ends the request; the call fails with `status` once the engine has let go. mu_ is held.
  void Fail(const absl::Status& status);

  const CallEnvironment* const environment_;
  v1::GenerateEvent event_;  // the one passed on last; a write needs it until it ends

 private:
  void OnReady() override;   // pump
  void OnTick() override;    // pump
  void OnEvents() override;  // engine thread

  absl::Status Submit();  // work queue
  // Once more, on the queue of what may block. mu_ is held.
  absl::Status SubmitWhereItMayBlock();
  void Submitted(const absl::Status& status);  // work queue
  void AdvanceLocked();
  // Nothing is passed on any more.
  void ClientLeftLocked();
  // Settles the turn of a session first, on a queue; then FinishLocked().
  void EndLocked(const absl::Status& status);
  void FinishLocked(const absl::Status& status);

  grpc::CallbackServerContext* const context_;  // valid until LetGo()
  const v1::GenerateRequest* const request_;    // valid until Finish()
  std::shared_ptr<Client> self_;                // dropped in LetGo()

  std::mutex mu_;
  GenerationRun run_;  // guarded by mu_ once submitted, as all below
  absl::Status failure_;
  bool submits_again_ = false;  // it was prepared, and has to wait for a disk
  bool submitted_ = false;
  bool client_left_ = false;  // nothing is passed on any more
  bool client_lost_ = false;  // it left, and nobody had asked to stop
  bool writing_ = false;
  bool settling_ = false;  // run_ belongs to the queue
  bool finished_ = false;
  bool gone_ = false;         // context_ must not be looked at any more
  absl::Time waiting_since_;  // of writing_ and finished_
};

}  // namespace statehouse
