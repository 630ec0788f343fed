// Sessions: named lines of snapshots that principals own, and turns that append to them. docs/sessions.md is the
// design.
//
// The store keeps token ids and snapshots in memory and computes nothing: a turn says what to run (prompt, the snapshot
// to start from), its caller runs it, and commits what came out. A turn that is not committed leaves no trace.
// Positions count tokens from the start. Errors: NOT_FOUND (no such session of this principal: one of another principal
// is as if it were not there), ALREADY_EXISTS (name), ABORTED (another turn is under way), INVALID_ARGUMENT by field,
// RESOURCE_EXHAUSTED (quota). Thread-safety: every method may be called from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/state/snapshot.h"

namespace statehouse {

using Labels = std::map<std::string, std::string>;

struct SessionSpec {
  std::string principal;
  std::string name;                               // unique per principal; 0 … 128 bytes, empty: only the id names it
  Labels labels;                                  // at most 64
  absl::Duration ttl = absl::InfiniteDuration();  // without a turn for that long it is deleted, unless pinned
  bool pinned = false;
};

struct SessionInfo {
  std::string id;  // 32 hexadecimal digits, random
  SessionSpec spec;
  int64_t num_tokens = 0;
  std::vector<int64_t> snapshot_positions;  // ascending
  int64_t snapshot_bytes = 0;
  absl::Time created;
  absl::Time last_turn;  // or creation
  bool busy = false;     // a turn is under way
};

// What a finished turn appended beyond its input.
struct TurnOutcome {
  std::vector<int32_t> tokens;  // generated ids, and the one that ended the answer
  uint64_t seed = 0;
  int64_t num_tokens = 0;  // of the session after it; set by Commit()
};

struct RewindCost {
  int64_t position = 0;
  int64_t snapshot_position = 0;  // 0: none, all is computed again
  int64_t tokens_to_compute = 0;  // by the next turn, beside its own input
};

struct SessionStoreOptions {
  int64_t chunk = 128;                     // C of the model: spaces older snapshots
  int64_t max_snapshots = 8;               // per session, the head's included; >= 1
  int64_t max_sessions_per_principal = 0;  // 0: no limit
  int64_t max_bytes_per_principal = 0;     // of snapshots; 0: no limit
  int64_t snapshot_bytes = 0;              // the most that one can take: a turn must find room for it
  absl::Duration keep_outcomes = absl::Hours(24);
  Clock* clock = nullptr;  // null: Clock::Real()
};

class SessionStore {
 private:
  struct Session;

 public:
  // The exclusive right to append to a session, given back on destruction. The store must outlive it. Thread-safety:
  // one thread.
  class Turn {
   public:
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    // Set if the idempotency key was used before: the first outcome. There is nothing to run or to commit.
    const std::optional<TurnOutcome>& repeated() const { return repeated_; }
    // All tokens: the session's and the input.
    const std::vector<int32_t>& prompt() const { return prompt_; }
    // The deepest snapshot to start from; null: none.
    const std::shared_ptr<const Snapshot>& from() const { return from_; }
    // Appends input and outcome. `snapshots` are of the prompt and outcome.tokens, in any order.
    TurnOutcome Commit(TurnOutcome outcome, std::span<const std::shared_ptr<const Snapshot>> snapshots);

   private:
    friend class SessionStore;
    Turn(SessionStore* store, std::shared_ptr<Session> session) : store_(store), session_(std::move(session)) {}

    SessionStore* const store_;
    const std::shared_ptr<Session> session_;
    std::optional<TurnOutcome> repeated_;
    std::vector<int32_t> prompt_;
    std::shared_ptr<const Snapshot> from_;
    std::string key_;
    bool open_ = true;
  };

  explicit SessionStore(const SessionStoreOptions& options);
  ~SessionStore();

  absl::StatusOr<SessionInfo> Create(const SessionSpec& spec);
  // `ref` is an id or a name, here and below.
  absl::StatusOr<SessionInfo> Get(std::string_view principal, std::string_view ref) const;
  absl::StatusOr<std::vector<int32_t>> Tokens(std::string_view principal, std::string_view ref) const;
  // By id, those after `after` that have all of `labels`; at most `limit`.
  std::vector<SessionInfo> List(std::string_view principal, const Labels& labels, std::string_view after,
                                int64_t limit) const;
  // ABORTED while a turn is under way.
  absl::Status Delete(std::string_view principal, std::string_view ref);
  // A new session with the first `position` tokens (all of them without one). It shares snapshots, and copies none.
  absl::StatusOr<SessionInfo> Fork(std::string_view principal, std::string_view ref, std::optional<int64_t> position,
                                   const SessionSpec& spec);
  // Forgets what lies beyond `position`. Snapshots beyond it are lost, but for one that can be taken back exactly. With
  // dry_run nothing changes.
  absl::StatusOr<RewindCost> Rewind(std::string_view principal, std::string_view ref, int64_t position, bool dry_run);
  absl::Status SetPinned(std::string_view principal, std::string_view ref, bool pinned);

  // `input` may be empty: the last answer goes on. `key`: idempotency key, empty: none; with another input than the
  // first time it is INVALID_ARGUMENT.
  absl::StatusOr<std::unique_ptr<Turn>> BeginTurn(std::string_view principal, std::string_view ref,
                                                  std::span<const int32_t> input, std::string_view key);

  // Deletes sessions that outlived their ttl and outcomes that are no longer kept. Returns the number of sessions.
  int64_t Expire();

 private:
  // Each principal's sessions by id and by name: nobody can reach what is not in their own table.
  struct Principal;

  // REQUIRES: mu_ held, for all below.
  absl::StatusOr<std::shared_ptr<Session>> Find(std::string_view principal, std::string_view ref) const;
  absl::Status CheckSpec(const SessionSpec& spec) const;
  absl::Status CheckQuota(std::string_view principal, int64_t more_sessions, int64_t more_bytes) const;
  std::shared_ptr<Session> Insert(const SessionSpec& spec);
  void Erase(const Session& session);
  void Prune(Session* session) const;
  void EndTurn(Session* session);
  SessionInfo InfoOf(const Session& session) const;

  const SessionStoreOptions options_;
  Clock* const clock_;
  mutable std::mutex mu_;
  std::map<std::string, Principal, std::less<>> principals_;
};

}  // namespace statehouse
