// Turns: who may append now, what a turn starts from, and what becomes of its outcome.
#include "engine/sessions/session_turn.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/sessions/open_session.h"
#include "engine/sessions/session.h"
#include "engine/sessions/session_store.h"

namespace statehouse {
namespace {

constexpr size_t kMaxKeyBytes = 128;
constexpr size_t kMaxDigestBytes = 64;
constexpr size_t kMaxSamplingBytes = size_t{64} << 10;
constexpr size_t kMaxDetailBytes = size_t{4} << 10;
constexpr absl::Duration kBusyRetry = absl::Seconds(1);
// The longest that the end of a turn waits for a snapshot to become durable.
constexpr absl::Duration kMaxDurableWait = absl::Seconds(60);

absl::Status AtMost(const char* field, size_t bytes, size_t most) {
  if (bytes <= most) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(bytes, " bytes"), absl::StrCat("at most ", most));
}

absl::Status CheckRequest(const TurnRequest& request) {
  absl::Status status = AtMost("session.idempotency_key", request.idempotency_key.size(), kMaxKeyBytes);
  if (status.ok()) status = AtMost("digest", request.digest.size(), kMaxDigestBytes);
  if (status.ok()) status = AtMost("sampling", request.sampling.size(), kMaxSamplingBytes);
  return status;
}

absl::Status AnotherInput() {
  return InvalidField("session.idempotency_key", "a key that another input was sent with", "a new key for a new turn");
}

bool IsSameInput(const TurnRequest& request, const std::string& digest, std::span<const int32_t> input) {
  if (!request.digest.empty() || !digest.empty()) return request.digest == digest;
  return request.make_input != nullptr ||
         std::equal(input.begin(), input.end(), request.input.begin(), request.input.end());
}

// A fork that was made meanwhile shares snapshots that `after` still takes for the session's own.
void TakeMarks(const std::vector<Checkpoint>& now, std::vector<Checkpoint>* after) {
  for (Checkpoint& checkpoint : *after) {
    checkpoint.shared = checkpoint.shared || std::any_of(now.begin(), now.end(), [&checkpoint](const auto& other) {
                          return other.shared && other.key == checkpoint.key;
                        });
  }
}

absl::Status UnderWay() {
  return Busy("session: another turn is under way; wait for its end, or fork the session", kBusyRetry);
}

}  // namespace

Turn::Turn(SessionStore* store, std::shared_ptr<OpenSession> session)
    : store_(store), session_(std::move(session)), session_id_(session_ == nullptr ? "" : session_->id) {}

Turn::~Turn() {
  if (is_open_) store_->EndTurn(session_.get());
}

int64_t Turn::num_replayed() const {
  const int64_t start = from_ == nullptr ? 0 : from_->position();
  return std::max<int64_t>(0, position_before_ - start);
}

std::vector<int64_t> Turn::SnapshotPositions() const {
  const int64_t start = from_ == nullptr ? 0 : from_->position();
  const SessionStoreOptions& options = store_->options_;
  return SpacedPositions(start, static_cast<int64_t>(prompt_.size()), options.chunk, options.max_snapshots - 1);
}

absl::StatusOr<TurnOutcome> Turn::Commit(TurnOutcome outcome,
                                         std::span<const std::shared_ptr<const Snapshot>> snapshots) {
  if (!is_open_) return absl::FailedPreconditionError("the turn is over, or repeats another");
  auto committed = store_->Commit(this, std::move(outcome), snapshots);
  is_open_ = false;
  store_->EndTurn(session_.get());
  return committed;
}

void SessionStore::EndTurn(OpenSession* session) {
  {
    std::lock_guard<std::mutex> lock(session->mu);
    session->is_busy = false;
    ReleaseLease(session);
  }
  std::lock_guard<std::mutex> lock(mu_);
  --busy_;
  turn_ended_.notify_all();
}

absl::StatusOr<std::unique_ptr<Turn>> SessionStore::BeginTurn(const TurnRequest& request) {
  return Begin(request, /*is_rebuild=*/false);
}

absl::StatusOr<std::unique_ptr<Turn>> SessionStore::BeginRebuild(std::string_view principal, std::string_view ref,
                                                                 absl::Time deadline) {
  TurnRequest request;
  request.principal = std::string(principal);
  request.ref = std::string(ref);
  request.deadline = deadline;
  return Begin(request, /*is_rebuild=*/true);
}

// Whether the key's turn was committed, or had begun; the turn is then told of it.
absl::StatusOr<bool> SessionStore::FindEarlier(const TurnRequest& request, const OpenSession& session, Turn* turn) {
  const SessionContent& content = session.content;
  const absl::Time now = clock_->Now();
  const KeptTurn* const kept = FindTurn(content, request.idempotency_key);
  if (kept != nullptr && now - kept->at < options_.keep_outcomes) {
    const auto begin = content.tokens.begin();
    const std::vector<int32_t> input(begin + kept->input_begin, begin + kept->answer_begin);
    if (!IsSameInput(request, kept->digest, input)) return AnotherInput();
    turn->repeated_ = TurnOutcome{.tokens = {begin + kept->answer_begin, begin + kept->end},
                                  .seed = kept->seed,
                                  .detail = kept->detail,
                                  .position_before = kept->input_begin,
                                  .answer_begin = kept->answer_begin,
                                  .num_tokens = kept->end};
    turn->prompt_.assign(begin, begin + kept->answer_begin);
    turn->position_before_ = kept->input_begin;
    turn->seed_ = kept->seed;
    return true;
  }
  if (request.idempotency_key.empty() || !content.begun.has_value()) return false;
  const TurnBegun& begun = *content.begun;
  if (begun.key != request.idempotency_key || now - begun.at >= options_.keep_outcomes) return false;
  if (!IsSameInput(request, begun.digest, begun.input)) return AnotherInput();
  turn->begun_ = begun;
  turn->seed_ = begun.seed;
  turn->is_recorded_ = true;
  return false;
}

absl::StatusOr<std::unique_ptr<Turn>> SessionStore::Begin(const TurnRequest& request, bool is_rebuild) {
  if (absl::Status status = CheckRequest(request); !status.ok()) return status;
  auto found = FindEntry(request.principal, request.ref, Access::kAppend);
  if (absl::IsNotFound(found.status()) && request.create_if_missing) {
    SessionSpec spec;
    spec.principal = request.principal;
    spec.name = request.ref;
    const auto created = Create(spec);
    // Somebody else may have been quicker.
    if (!created.ok() && !absl::IsAlreadyExists(created.status())) return created.status();
    found = FindEntry(request.principal, request.ref, Access::kAppend);
  }
  if (!found.ok()) return found.status();
  std::unique_ptr<Turn> turn(new Turn(this, Opened(*found)));
  turn->is_rebuild_ = is_rebuild;
  turn->deadline_ = request.deadline;
  absl::Status status = PrepareTurn(request, turn->session_.get(), turn.get());
  if (absl::IsNotFound(status)) {
    return absl::NotFoundError(absl::StrCat("session: you have none with the id or name \"", request.ref, "\""));
  }
  if (!status.ok() || turn->repeated_.has_value()) {
    if (!status.ok()) return status;
    return turn;
  }
  std::vector<Checkpoint> usable;
  if (!is_rebuild) {
    std::lock_guard<std::mutex> lock(turn->session_->mu);
    const int64_t size = static_cast<int64_t>(turn->prompt_.size());
    usable = UsableAt(turn->session_->content, size, /*needs_logits=*/true);
  }
  status = FetchStart(request, std::move(usable), turn.get());
  if (!status.ok()) return status;
  return turn;
}

// Takes the right to append, unless the turn repeats another.
absl::Status SessionStore::TakeTurn(const TurnRequest& request, OpenSession* session, Turn* turn) {
  if (session->is_deleted) return absl::NotFoundError("");
  absl::Status status = session->is_busy ? UnderWay() : AcquireLease(session);
  if (status.ok()) status = Refresh(session);
  if (!status.ok() && !absl::IsAborted(status)) return status;
  if (!status.ok()) {
    // Who cannot append may still ask for what was committed.
    if (request.idempotency_key.empty()) return status;
    if (absl::Status read = Refresh(session); !read.ok()) return read;
  }
  const auto repeats = FindEarlier(request, *session, turn);
  if (repeats.ok() && *repeats) return absl::OkStatus();
  if (!status.ok()) return status;
  if (!repeats.ok()) return repeats.status();
  if (turn->is_rebuild_ && session->content.tokens.empty()) {
    return absl::FailedPreconditionError("session: it holds no tokens; there is nothing to rebuild");
  }
  if (!turn->is_rebuild_) {
    status = CheckQuota(request.principal, 0, options_.snapshot_bytes);
    if (!status.ok()) return status;
  }
  {
    std::lock_guard<std::mutex> table(mu_);
    if (draining_) {
      return WithRetryAfter(absl::UnavailableError("the server is shutting down; ask another, or later"), kBusyRetry);
    }
    ++busy_;
  }
  session->is_busy = turn->is_open_ = true;
  turn->prompt_ = session->content.tokens;
  turn->position_before_ = session->content.num_tokens();
  return absl::OkStatus();
}

// Takes the turn, makes its input, and records that it began.
absl::Status SessionStore::PrepareTurn(const TurnRequest& request, OpenSession* session, Turn* turn) {
  std::unique_lock<std::mutex> lock(session->mu);
  absl::Status status = TakeTurn(request, session, turn);
  if (!turn->is_open_ && !session->is_busy) ReleaseLease(session);
  if (!turn->is_open_ || turn->is_rebuild_) return status;
  lock.unlock();  // reading goes on while the input is made

  std::vector<int32_t> input(request.input.begin(), request.input.end());
  if (turn->is_recorded_) {
    input = turn->begun_.input;
  } else if (request.make_input != nullptr) {
    auto made = request.make_input(turn->prompt_);
    if (!made.ok()) return made.status();
    input = *std::move(made);
  }
  turn->prompt_.insert(turn->prompt_.end(), input.begin(), input.end());
  if (turn->prompt_.empty()) return InvalidField("input", "no tokens", "at least one for the first turn");
  if (turn->is_recorded_) return absl::OkStatus();
  turn->seed_ = request.seed;
  turn->begun_ = {.key = request.idempotency_key,
                  .seed = request.seed,
                  .sampling = request.sampling,
                  .digest = request.digest,
                  .input = std::move(input),
                  .at = clock_->Now()};
  if (request.idempotency_key.empty()) return absl::OkStatus();  // nobody can ask for it again
  lock.lock();
  status = Append(session, turn->begun_);
  turn->is_recorded_ = status.ok();
  // Turns that begin and never end would make the records grow without end too.
  if (status.ok()) CompactIfWorthwhile(session);
  return status;
}

absl::Status SessionStore::FetchStart(const TurnRequest& request, std::vector<Checkpoint> usable, Turn* turn) {
  if (options_.vault == nullptr) return absl::OkStatus();
  std::string why;
  for (const Checkpoint& checkpoint : usable) {
    auto fetched = options_.vault->Fetch(checkpoint.key, request.allow_other_numeric);
    absl::Status status = fetched.status();
    if (absl::IsFailedPrecondition(status)) {
      return absl::FailedPreconditionError(absl::StrCat("session: its snapshot at ", checkpoint.position, ": ",
                                                        std::string(status.message()), "; rebuild the session"));
    }
    if (status.ok()) {
      const Snapshot& snapshot = *fetched->snapshot;
      const auto& tokens = snapshot.tokens();
      const bool fits = snapshot.position() == checkpoint.key_position && checkpoint.position >= snapshot.exact_from();
      if (!fits && snapshot.position() != checkpoint.position) {
        status = absl::DataLossError("it is of another position");
      } else if (!std::equal(tokens.begin(), tokens.begin() + checkpoint.position, turn->prompt_.begin())) {
        status = absl::DataLossError("it holds other tokens");
      }
    }
    if (status.ok()) {
      turn->from_ = fetched->snapshot->position() == checkpoint.position
                        ? fetched->snapshot
                        : fetched->snapshot->TakenBackTo(checkpoint.position);
      turn->from_tier_ = fetched->tier;
      turn->exactness_ = fetched->exactness;
      turn->numeric_difference_ = fetched->numeric_difference;
      break;
    }
    absl::StrAppend(&why, why.empty() ? "" : "; ", "the snapshot at ", checkpoint.position, ": ",
                    std::string(status.message()));
  }
  if (!why.empty()) {
    const int64_t start = turn->from_ == nullptr ? 0 : turn->from_->position();
    turn->why_not_nearer_ = absl::StrCat(why, "; ", usable.front().position - start, " tokens are computed again");
  }
  return absl::OkStatus();
}

// No lock is held: the session is busy, and a slow tier stops no reader, no renewal of its lease, nobody else.
absl::Status SessionStore::WaitForDurableSnapshot(const std::vector<std::string>& keys, bool shared,
                                                  absl::Time deadline, std::string* durable) {
  const absl::Time until = std::min(deadline, absl::Now() + kMaxDurableWait);
  absl::Status status = absl::OkStatus();
  for (const std::string& key : keys) {
    status = options_.vault->Flush(key, shared, until);
    if (absl::IsFailedPrecondition(status)) return absl::OkStatus();  // no tier survives: nothing to wait for
    if (status.ok()) {
      *durable = key;
      return status;
    }
  }
  return status;
}

std::vector<std::string> SessionStore::KeysToWaitFor(const OpenSession& session,
                                                     const std::vector<Checkpoint>& checkpoints, int64_t head) const {
  if (session.meta.durability != Durability::kSync || head <= options_.max_replay_tokens) return {};
  std::vector<std::string> keys;
  for (const Checkpoint& checkpoint : checkpoints) {
    if (head - checkpoint.position > options_.max_replay_tokens) continue;
    if (session.durable_keys.contains(checkpoint.key)) return {};
    keys.push_back(checkpoint.key);
  }
  return keys;
}

// Of `snapshots`, what is worth keeping beside the session's own goes to the vault. All that there are then; `new_keys`
// are those that the vault was given.
std::vector<Checkpoint> SessionStore::Keep(const OpenSession& session, const Turn& turn, int64_t num_tokens,
                                           std::span<const std::shared_ptr<const Snapshot>> snapshots,
                                           std::vector<std::string>* new_keys) {
  std::map<std::string, std::shared_ptr<const Snapshot>> by_key;
  std::vector<Checkpoint> more;
  for (const auto& snapshot : snapshots) {
    if (options_.vault == nullptr || snapshot == nullptr || snapshot->position() > num_tokens) continue;
    more.push_back(NewCheckpoint(*snapshot));
    by_key[more.back().key] = snapshot;
  }
  const std::vector<Checkpoint> none;
  std::vector<Checkpoint> all =
      Merge(turn.is_rebuild_ ? none : session.content.checkpoints, more, options_.chunk, options_.max_snapshots);
  std::erase_if(all, [&](const Checkpoint& checkpoint) {
    const auto found = by_key.find(checkpoint.key);
    if (found == by_key.end()) return false;
    // One that the vault does not take costs a replay; the vault counts it.
    const bool is_kept = options_.vault->Keep(checkpoint.key, found->second, session.archive != &memory_).ok();
    if (is_kept) new_keys->push_back(checkpoint.key);
    return !is_kept;
  });
  return all;
}

absl::StatusOr<TurnOutcome> SessionStore::Commit(Turn* turn, TurnOutcome outcome,
                                                 std::span<const std::shared_ptr<const Snapshot>> snapshots) {
  if (absl::Status status = AtMost("detail", outcome.detail.size(), kMaxDetailBytes); !status.ok()) return status;
  OpenSession* const session = turn->session_.get();
  outcome.position_before = turn->position_before_;
  outcome.answer_begin = static_cast<int64_t>(turn->prompt_.size());
  outcome.num_tokens = outcome.answer_begin + static_cast<int64_t>(outcome.tokens.size());
  std::unique_lock<std::mutex> lock(session->mu);
  std::vector<std::string> new_keys;
  std::vector<Checkpoint> after = Keep(*session, *turn, outcome.num_tokens, snapshots, &new_keys);
  absl::Status status = absl::OkStatus();
  if (const std::vector<std::string> keys = KeysToWaitFor(*session, after, outcome.num_tokens); !keys.empty()) {
    const bool is_shared = session->archive->is_shared();
    std::string durable;
    lock.unlock();
    status = WaitForDurableSnapshot(keys, is_shared, turn->deadline_, &durable);
    lock.lock();
    if (!durable.empty()) session->durable_keys.insert(durable);
    TakeMarks(session->content.checkpoints, &after);
  }
  const std::vector<Checkpoint> before = session->content.checkpoints;
  if (status.ok() && turn->is_rebuild_) {
    status = Append(session, CheckpointsChanged{.checkpoints = after});
  } else if (status.ok()) {
    TurnCommitted record;
    record.as_begun = turn->is_recorded_;
    if (!record.as_begun) record.input.assign(turn->input().begin(), turn->input().end());
    record.answer = outcome.tokens;
    record.turn = {.input_begin = outcome.position_before,
                   .answer_begin = outcome.answer_begin,
                   .end = outcome.num_tokens,
                   .seed = outcome.seed,
                   .key = turn->begun_.key,
                   .digest = turn->begun_.digest,
                   .detail = outcome.detail,
                   .at = clock_->Now()};
    record.checkpoints = after;
    status = Append(session, std::move(record));
  }
  if (!status.ok()) {
    for (const std::string& key : new_keys) {
      session->durable_keys.erase(key);
      SnapshotVault::Removed removed;
      // Where it is not known whether the record stands, it may name them.
      if (!absl::IsUnavailable(status)) (void)options_.vault->Drop(key, &removed);
    }
    return status;
  }
  DropKeys(session, before);
  CompactIfWorthwhile(session);
  return outcome;
}

}  // namespace statehouse
