// A turn: the exclusive right to append to a session, what its caller runs, and what becomes of the outcome.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/sessions/session_info.h"
#include "engine/sessions/session_record.h"
#include "engine/state/snapshot.h"

namespace statehouse {

class SessionStore;
struct OpenSession;

struct TurnRequest {
  std::string principal;
  std::string ref;                 // id or name
  std::span<const int32_t> input;  // may be empty if the session holds tokens: the last answer goes on
  // If set, makes the input from the tokens that the session holds, with the turn held. Called once; not called where
  // the key repeats a turn that was committed or had begun: the input is then the recorded one.
  std::function<absl::StatusOr<std::vector<int32_t>>(std::span<const int32_t> held)> make_input;
  std::string idempotency_key;  // at most 128 bytes; empty: none
  // What a second request of the key is compared by (INVALID_ARGUMENT if it differs), at most 64 bytes; empty: the
  // input.
  std::string digest;
  uint64_t seed = 0;
  std::string sampling;  // for the record, at most 64 KiB; opaque
  bool create_if_missing = false;
  bool allow_other_numeric = false;
  absl::Time deadline = absl::InfiniteFuture();  // of Commit()'s wait for a durable snapshot
};

// Given back on destruction; if it was not committed by then, the session is as before. The store must outlive it.
// Thread-safety: one thread at a time.
class Turn {
 public:
  ~Turn();
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  const std::string& session_id() const { return session_id_; }
  // Set if the idempotency key was used before: the first outcome. There is then nothing to run or to commit.
  const std::optional<TurnOutcome>& repeated() const { return repeated_; }
  // All tokens: the session's and the input. Of a repeated turn as they were then.
  const std::vector<int32_t>& prompt() const { return prompt_; }
  // Where the input begins; it ends with the prompt.
  int64_t position_before() const { return position_before_; }
  std::span<const int32_t> input() const { return std::span(prompt_).subspan(static_cast<size_t>(position_before_)); }
  // The request's, or that of the turn of the same key that began before and never ended: the same tokens come out.
  uint64_t seed() const { return seed_; }

  // The deepest snapshot to start from; null: none.
  const std::shared_ptr<const Snapshot>& from() const { return from_; }
  Tier from_tier() const { return from_tier_; }
  Exactness exactness() const { return exactness_; }
  const std::string& numeric_difference() const { return numeric_difference_; }
  // Not empty if a nearer snapshot was there and could not be used: "the snapshot at 512: …; 384 tokens are computed
  // again".
  const std::string& why_not_nearer() const { return why_not_nearer_; }
  // Tokens before the input that from() does not cover.
  int64_t num_replayed() const;
  // Where snapshots are worth ordering on the way, beside the end: ascending, beyond from(), within the prompt.
  std::vector<int64_t> SnapshotPositions() const;

  // It will not run: what was asked for is refused. Its beginning is forgotten, and a session that it made goes again.
  void Refuse();

  // Appends input and outcome, and returns once that is as durable as the session asks. `snapshots` are of the prompt
  // and outcome.tokens, in any order; null ones are skipped. The turn is over, whatever comes out. ABORTED: another
  // server has had the session since. RESOURCE_EXHAUSTED: full; the session is as before. UNAVAILABLE: whether it
  // happened is not known; the same idempotency key tells.
  absl::StatusOr<TurnOutcome> Commit(TurnOutcome outcome, std::span<const std::shared_ptr<const Snapshot>> snapshots);

 private:
  friend class SessionStore;
  Turn(SessionStore* store, std::shared_ptr<OpenSession> session);

  SessionStore* const store_;
  const std::shared_ptr<OpenSession> session_;
  const std::string session_id_;
  std::optional<TurnOutcome> repeated_;
  std::vector<int32_t> prompt_;
  int64_t position_before_ = 0;
  std::shared_ptr<const Snapshot> from_;
  Tier from_tier_ = Tier::kNone;
  Exactness exactness_ = Exactness::kExact;
  std::string numeric_difference_;
  std::string why_not_nearer_;
  uint64_t seed_ = 0;
  TurnBegun begun_;           // for the record; its input only until it is written
  bool is_recorded_ = false;  // begun_ is the session's last record of a beginning
  bool is_retry_ = false;     // of a turn that began before and never ended
  bool is_rebuild_ = false;
  bool made_session_ = false;
  bool is_open_ = false;
  absl::Time deadline_ = absl::InfiniteFuture();
};

}  // namespace statehouse
