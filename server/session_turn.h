// A turn of a session from a call's side: what the engine is to run for it, and what becomes of the answer.
//
//   Begin() → the engine runs `request` (or, of a repeated turn, Replay() holds the first answer) → Settle()
//
// A turn that is not settled leaves its session as it was. Thread-safety: one thread at a time; Begin() and Settle()
// block on disk or network.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/event_stream.h"
#include "engine/request.h"
#include "engine/sessions/session_store.h"
#include "server/call_info.h"
#include "server/convert_event.h"
#include "server/served_model.h"
#include "server/turn_table.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse {

class SessionTurn {
 public:
  // `request` holds the parameters of `wire` (ToParameters()); prompt, snapshots and seed are filled in. ABORTED (with
  // a retry hint) while another turn is under way; one of the same idempotency key on this server is ended first.
  // `table` and `model` must outlive the turn. Errors are also those of SessionStore::BeginTurn() and of the input's
  // conversion.
  static absl::StatusOr<std::unique_ptr<SessionTurn>> Begin(const v1::GenerateRequest& wire, const ServedModel& model,
                                                            const CallInfo& info, TurnTable* table, Request* request);
  ~SessionTurn();

  const std::string& session_id() const { return session_id_; }
  std::vector<int32_t> input() const { return input_; }
  // This key's turn was committed before: there is nothing to run.
  bool is_repeated() const { return repeated_.has_value(); }
  // REQUIRES: is_repeated(). The first answer, as a stream in which all of it waits. DATA_LOSS: what is on record of it
  // cannot be read.
  absl::StatusOr<std::shared_ptr<EventStream>> Replay(const Request& request, const ServedModel& model) const;
  // The engine runs it: from now on a call that takes over can cancel it.
  void Running(const std::shared_ptr<EventStream>& stream);
  // The engine does not take it: the session is as before, or gone if this turn made it.
  void Refuse();
  // A later call with the same key wants its place.
  bool is_superseded() const { return ticket_ != nullptr && ticket_->superseded(); }

  void FillStarted(v1::Started* started) const;
  // How the request ended, and what came out; `num_delivered` tokens of it were sent. With `may_come_back` the caller
  // will ask again with the same key, so that nothing is kept of what was cut off. Returns what the call is to end
  // with.
  absl::Status Settle(const absl::Status& ended, const Answer& answer, int64_t num_delivered, bool may_come_back);
  // Valid after Settle().
  const v1::SessionOutcome& outcome() const { return outcome_; }
  const v1::CacheReport& cache() const { return cache_; }

 private:
  SessionTurn(const v1::SessionUse& use, std::unique_ptr<Turn> turn);

  absl::Status OrderSnapshots(const ServedModel& model, Request* request);
  absl::Status Commit(TurnOutcome outcome, const std::vector<int32_t>& all_tokens);
  void Describe();

  const v1::SessionUse use_;
  // Before turn_, so that it goes after it: who waits for the ticket begins a turn at once.
  std::unique_ptr<TurnTable::Ticket> ticket_;
  std::unique_ptr<Turn> turn_;  // null once it is over
  std::string session_id_;
  std::vector<int32_t> input_;
  int64_t position_before_ = 0;
  std::optional<TurnOutcome> repeated_;
  std::vector<std::shared_ptr<SnapshotDraft>> drafts_;
  v1::SessionOutcome outcome_;
  v1::CacheReport cache_;
};

}  // namespace statehouse
