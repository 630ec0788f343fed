// Turns: who may append now, and what a turn starts from. session_commit.cc is what becomes of its outcome.
#include "engine/sessions/session_turn.h"

#include <algorithm>
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
constexpr absl::Duration kBusyRetry = absl::Seconds(1);

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

void Turn::Refuse() {
  if (std::exchange(is_open_, false)) store_->EndTurn(session_.get());
  if (std::exchange(made_session_, false)) store_->RemoveIfUnused(session_->entry.principal, session_id_);
}

void SessionStore::RemoveIfUnused(const std::string& principal, const std::string& id) {
  auto held = HoldToAppend(principal, id);
  if (!held.ok()) return;  // in use by somebody else, or gone
  OpenSession* const session = held->session.get();
  // Others may have changed it meanwhile.
  const SessionSpec spec = InfoOf(session).spec;
  const bool is_as_made = spec.labels.empty() && !spec.pinned && !spec.shared;
  const bool is_unused = is_as_made && session->content.tokens.empty() && session->content.turns.empty();
  // One that stays is as good as one that was created.
  if (!is_unused || !Remove(session).ok()) ReleaseLease(session);
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
  // A session that another call of the same name made, and whose first turn was refused, may go while this one begins.
  constexpr int kMostTries = 3;
  auto turn = Begin(request, /*is_rebuild=*/false);
  for (int tries = 1; tries < kMostTries && request.create_if_missing && absl::IsNotFound(turn.status()); ++tries) {
    turn = Begin(request, /*is_rebuild=*/false);
  }
  return turn;
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
  turn->is_recorded_ = turn->is_retry_ = true;
  return false;
}

absl::StatusOr<std::unique_ptr<Turn>> SessionStore::Begin(const TurnRequest& request, bool is_rebuild) {
  if (absl::Status status = CheckRequest(request); !status.ok()) return status;
  auto found = FindEntry(request.principal, request.ref, Access::kAppend);
  bool made_session = false;
  if (absl::IsNotFound(found.status()) && request.create_if_missing) {
    SessionSpec spec;
    spec.principal = request.principal;
    spec.name = request.ref;
    const auto created = Create(spec);
    // Somebody else may have been quicker.
    if (!created.ok() && !absl::IsAlreadyExists(created.status())) return created.status();
    made_session = created.ok();
    found = FindEntry(request.principal, request.ref, Access::kAppend);
  }
  if (!found.ok()) return found.status();
  std::unique_ptr<Turn> turn(new Turn(this, Opened(*found)));
  turn->is_rebuild_ = is_rebuild;
  turn->made_session_ = made_session;
  turn->deadline_ = request.deadline;
  absl::Status status = PrepareTurn(request, turn->session_.get(), turn.get());
  if (!status.ok()) {
    turn->Refuse();
    return absl::IsNotFound(status) ? NoneOfYours(request.ref) : status;
  }
  if (turn->repeated_.has_value()) return turn;
  std::vector<Checkpoint> usable;
  if (!is_rebuild) {
    std::lock_guard<std::mutex> lock(turn->session_->mu);
    const int64_t size = static_cast<int64_t>(turn->prompt_.size());
    usable = UsableAt(turn->session_->content, size, /*needs_logits=*/true);
  }
  status = FetchStart(request, std::move(usable), turn.get());
  if (!status.ok()) return status;
  SayIfContinued(turn.get());
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
    input = std::exchange(turn->begun_.input, {});
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
  turn->begun_.input.clear();
  turn->is_recorded_ = status.ok();
  // Turns that begin and never end would make the records grow without end too.
  if (status.ok()) CompactIfWorthwhile(session);
  return status;
}

void SessionStore::SayIfContinued(Turn* turn) const {
  const bool follows = turn->from_ != nullptr || turn->position_before_ > 0 || turn->is_retry_;
  if (options_.is_batch_invariant || !follows) return;
  turn->exactness_ = Exactness::kContinued;
  absl::StrAppend(&turn->numeric_difference_, turn->numeric_difference_.empty() ? "" : "; ", kNotBatchInvariant);
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

}  // namespace statehouse
