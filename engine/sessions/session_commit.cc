// The end of a turn: which snapshots stay, what has to be durable first, and the record that makes it count.
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

constexpr size_t kMaxDetailBytes = size_t{4} << 10;
// The longest that the end of a turn waits for a snapshot to become durable.
constexpr absl::Duration kMaxDurableWait = absl::Seconds(60);
constexpr absl::Duration kFullRetry = absl::Seconds(1);

// A fork that was made meanwhile shares snapshots that `after` still takes for the session's own.
void TakeMarks(const std::vector<Checkpoint>& now, std::vector<Checkpoint>* after) {
  for (Checkpoint& checkpoint : *after) {
    checkpoint.shared = checkpoint.shared || std::any_of(now.begin(), now.end(), [&checkpoint](const auto& other) {
                          return other.shared && other.key == checkpoint.key;
                        });
  }
}

}  // namespace

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

absl::StatusOr<std::vector<std::string>> SessionStore::KeysToWaitFor(const OpenSession& session,
                                                                     const std::vector<Checkpoint>& checkpoints,
                                                                     int64_t head) const {
  std::vector<std::string> keys;
  if (session.meta.durability != Durability::kSync || head <= options_.max_replay_tokens) return keys;
  // Where no tier survives, nothing is promised of snapshots.
  if (options_.vault == nullptr || !options_.vault->CanFlush(session.archive->is_shared())) return keys;
  for (const Checkpoint& checkpoint : checkpoints) {
    if (head - checkpoint.position > options_.max_replay_tokens) continue;
    if (session.durable_keys.contains(checkpoint.key)) return std::vector<std::string>();
    keys.push_back(checkpoint.key);
  }
  if (!keys.empty()) return keys;
  return Overloaded(absl::StrCat("session: no snapshot of its last ", options_.max_replay_tokens,
                                 " tokens was made, and with durability sync at most so many may be without one; it is "
                                 "as before this turn"),
                    kFullRetry);
}

absl::StatusOr<std::string> SessionStore::WaitForDurableSnapshot(const std::vector<std::string>& keys, bool shared,
                                                                 absl::Time deadline) {
  const absl::Time until = std::min(deadline, absl::Now() + kMaxDurableWait);
  absl::Status why;
  for (const std::string& key : keys) {
    const absl::Status status = options_.vault->Flush(key, shared, until);
    if (status.ok()) return key;
    if (!absl::IsNotFound(status)) why = status;
  }
  if (!why.ok()) return why;
  // They were given to the vault, and had to leave host memory before they were written.
  return Overloaded(
      "session: snapshots wait faster than the disk or store takes them, and this turn's had to go; the session is as "
      "before it",
      kFullRetry);
}

absl::StatusOr<TurnOutcome> SessionStore::Commit(Turn* turn, TurnOutcome outcome,
                                                 std::span<const std::shared_ptr<const Snapshot>> snapshots) {
  if (outcome.detail.size() > kMaxDetailBytes) {
    return InvalidField("detail", absl::StrCat(outcome.detail.size(), " bytes"),
                        absl::StrCat("at most ", kMaxDetailBytes));
  }
  OpenSession* const session = turn->session_.get();
  outcome.position_before = turn->position_before_;
  outcome.answer_begin = static_cast<int64_t>(turn->prompt_.size());
  outcome.num_tokens = outcome.answer_begin + static_cast<int64_t>(outcome.tokens.size());
  std::unique_lock<std::mutex> lock(session->mu);
  std::vector<std::string> new_keys;
  std::vector<Checkpoint> after = Keep(*session, *turn, outcome.num_tokens, snapshots, &new_keys);
  const auto keys = KeysToWaitFor(*session, after, outcome.num_tokens);
  absl::Status status = keys.status();
  if (keys.ok() && !keys->empty()) {
    const bool is_shared = session->archive->is_shared();
    lock.unlock();
    const auto durable = WaitForDurableSnapshot(*keys, is_shared, turn->deadline_);
    lock.lock();
    status = durable.status();
    if (durable.ok()) session->durable_keys.insert(*durable);
    TakeMarks(session->content.checkpoints, &after);
  }
  const std::vector<Checkpoint> before = session->content.checkpoints;
  const bool tried = status.ok();
  if (tried && turn->is_rebuild_) {
    status = Append(session, CheckpointsChanged{.checkpoints = after});
  } else if (tried) {
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
      if (!tried || !absl::IsUnavailable(status)) (void)options_.vault->Drop(key, &removed);
    }
    return status;
  }
  DropKeys(session, before);
  CompactIfWorthwhile(session);
  return outcome;
}

}  // namespace statehouse
