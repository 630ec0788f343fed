// One generation request from its message to its log line: what Generate and GenerateOnce have in common.
// Thread-safety: one thread at a time, except Cancel().
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/event_stream.h"
#include "grpcpp/support/status.h"
#include "server/call_environment.h"
#include "server/call_info.h"
#include "server/convert_event.h"
#include "server/prefix_use.h"
#include "server/session_turn.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse {

class GenerationRun {
 public:
  // `method` is the call's name for log and metrics. `environment` must outlive this object.
  GenerationRun(const CallEnvironment* environment, const char* method);
  ~GenerationRun();

  // Reads the call's metadata; quick.
  absl::Status Identify(grpc::CallbackServerContext* context);
  // Whose call it is. REQUIRES: Identify() was called.
  const std::string& principal() const { return info_.principal; }
  // Converts, and begins the turn of a session: may take long, and blocks with a session. REQUIRES: Identify()
  // returned OK.
  absl::Status Prepare(const v1::GenerateRequest& request);
  // Has Submit() to fetch something from a disk or a network? REQUIRES: Prepare() returned OK.
  bool may_block() const { return may_block_; }
  // From then on `listener` hears of events, until Detach(). REQUIRES: Prepare() returned OK.
  absl::Status Submit(const v1::GenerateRequest& request, EventStream::Listener* listener);
  // No call of the listener happens after this returns.
  void Detach();
  // The next event of the wire; REQUIRES: Submit() returned OK.
  EventConverter::Result Take(v1::GenerateEvent* event);
  // A turn of a session must be settled before the request is concluded: may block. Returns what the call is to end
  // with. `client_lost`: the client went away before anybody asked the request to stop. REQUIRES: Take() returned
  // kDone.
  bool needs_settling() const { return turn_ != nullptr; }
  absl::Status Settle(const absl::Status& ended, bool client_lost);
  // What was taken so far has been sent.
  void Delivered() { num_delivered_ = converter_->num_tokens(); }
  // Where a turn left its session; null: there was none, or it never began.
  const v1::SessionOutcome* session() const { return turn_ == nullptr ? nullptr : &turn_->outcome(); }
  const v1::CacheReport* cache() const { return turn_ == nullptr ? nullptr : &turn_->cache(); }
  // How the request ended. REQUIRES: Take() returned kDone.
  absl::Status status() const { return stream_->status(); }
  // Asks the engine to stop, if it has the request. Any thread, once Submit() has returned.
  void Cancel() {
    if (stream_ != nullptr) stream_->Cancel();
  }
  // Has it been asked to stop, by Cancel or by a call that takes over? REQUIRES: Submit() has returned.
  bool is_cancelled() const { return stream_ != nullptr && stream_->cancelled(); }
  // A call with the same idempotency key waits for this one's end. REQUIRES: Submit() has returned OK, and Settle() was
  // not called.
  bool is_superseded() const { return turn_ != nullptr && turn_->is_superseded(); }
  // Events waited for the reader: until all of them are taken, their times say nothing about the engine.
  void ReaderWasSlow() { behind_ = true; }

  // Writes the log line and counts the call, once; returns the status for the wire.
  grpc::Status Conclude(const absl::Status& ended);

 private:
  // When an output's tokens were passed on.
  struct Pace {
    int64_t tokens = 0;
    int64_t first_tokens = 0;  // that came at once, before any gap
    absl::Time first, last;
    bool was_behind = false;
  };

  absl::Status BeginTurn(const v1::GenerateRequest& request, Request* engine_request);
  // To the engine, or, of a turn that is repeated, to the first answer.
  absl::Status Start(std::unique_ptr<Request> request);
  void ObserveTokens();
  void ObserveOutput(const v1::Finished& finished);
  void AddUsage(Log::Fields* fields) const;

  const CallEnvironment* const environment_;
  const char* const method_;
  const absl::Time start_ = absl::Now();
  CallInfo info_;
  const ServedModel* model_ = nullptr;
  std::unique_ptr<Request> converted_;  // until it is submitted
  bool may_block_ = false;
  std::shared_ptr<EventStream> stream_;
  std::optional<EventConverter> converter_;
  std::unique_ptr<SessionTurn> turn_;  // null: no session
  int64_t num_delivered_ = 0;          // tokens that were sent
  PrefixUse prefix_;
  std::unique_ptr<CallTable::Ticket> ticket_;  // until the engine has the request
  int64_t prompt_tokens_ = 0;
  int64_t tokens_seen_ = 0;
  std::vector<Pace> paces_;  // by output
  bool behind_ = false;
  std::string finish_reasons_;  // "stop", or one per output: "stop,length"
  std::string prompt_text_;     // kept only for --log-prompts
  bool may_come_back_ = false;  // with the turn's idempotency key
  bool done_ = false;
};

}  // namespace statehouse
