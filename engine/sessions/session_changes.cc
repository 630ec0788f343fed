// What is done to a session as a whole: made, deleted, forked, rewound, changed, exported.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/sessions/open_session.h"
#include "engine/sessions/session.h"
#include "engine/sessions/session_store.h"

namespace statehouse {
namespace {

constexpr int kMaxForkTries = 3;

absl::Status BadPosition(int64_t position, int64_t num_tokens) {
  return InvalidField("position", absl::StrCat(position), absl::StrCat("a position in [0, ", num_tokens, "]"));
}

}  // namespace

absl::StatusOr<SessionInfo> SessionStore::Create(const SessionSpec& spec) { return Insert(spec, {}, ""); }

absl::StatusOr<SnapshotVault::Removed> SessionStore::Delete(std::string_view principal, std::string_view ref) {
  auto held = HoldToAppend(principal, ref);
  std::shared_ptr<OpenSession> session;
  absl::StatusOr<SnapshotVault::Removed> removed = SnapshotVault::Removed{};
  if (held.ok()) {
    session = held->session;
    removed = Remove(session.get());
    if (!removed.ok()) ReleaseLease(session.get());
    held->lock.unlock();
  } else if (absl::IsDataLoss(held.status())) {  // its snapshots are not known, and left to CollectGarbage()
    const auto found = FindEntry(principal, ref, Access::kAppend);
    if (!found.ok()) return found.status();
    session = Opened(*found);
    std::lock_guard<std::mutex> lock(session->mu);
    if (absl::Status status = AcquireLease(session.get()); !status.ok() && !absl::IsDataLoss(status)) {
      ReleaseLease(session.get());
      return status;
    }
    session->content = {};
    removed = Remove(session.get());
    if (!removed.ok()) ReleaseLease(session.get());
  } else {
    return held.status();
  }
  // The session is gone. Nobody changes it any more, so it can be read without its lock.
  if (removed.ok()) (void)DropFamilyKeys(*session, &*removed);
  return removed;
}

absl::StatusOr<SessionInfo> SessionStore::Fork(std::string_view principal, std::string_view ref,
                                               std::optional<int64_t> position, const SessionSpec& spec) {
  SessionContent content;
  std::string family;
  const SessionArchive* from = nullptr;
  {
    const auto held = Hold(principal, ref, Access::kRead);
    if (!held.ok()) return held.status();
    OpenSession* const source = held->session.get();
    from = source->archive;
    family = source->meta.family;
    for (int attempt = 1;; ++attempt) {
      const int64_t number = source->num_records;
      const int64_t at = position.value_or(source->content.num_tokens());
      if (at < 0 || at > source->content.num_tokens()) return BadPosition(at, source->content.num_tokens());
      content = CutTo(source->content, at);
      if (absl::Status status = ShareCheckpoints(source, &content.checkpoints); !status.ok()) return status;
      // Where another server may have appended before it could see the mark, what it left is taken instead.
      if (!from->is_shared() || !source->lease.owner.empty()) break;
      if (absl::Status status = ReadRecords(source); !status.ok()) return status;
      if (source->num_records == number || attempt == kMaxForkTries) break;
    }
  }
  // A turn's outcome belongs to the session that its key was sent for.
  for (KeptTurn& turn : content.turns) turn.key.clear();
  SessionSpec forked = spec;
  if (forked.principal.empty()) forked.principal = std::string(principal);
  const SessionArchive* const to = ArchiveFor(DurabilityOf(spec));
  if (to != from) KeepFor(to, content.checkpoints);
  return Insert(forked, std::move(content), family);
}

absl::Status SessionStore::ShareCheckpoints(OpenSession* source, std::vector<Checkpoint>* checkpoints) {
  bool is_marked = true;
  for (Checkpoint& checkpoint : *checkpoints) {
    is_marked = is_marked && checkpoint.shared;
    checkpoint.shared = true;
  }
  if (is_marked) return absl::OkStatus();
  for (Checkpoint& checkpoint : source->content.checkpoints) checkpoint.shared = true;
  return ChangeEntry(source, [source](SessionEntry*, SessionMeta* meta) {
    meta->forked_at = std::max(meta->forked_at, source->num_records);
  });
}

absl::StatusOr<RewindCost> SessionStore::Rewind(std::string_view principal, std::string_view ref, int64_t position,
                                                bool dry_run) {
  const auto held = HoldToAppend(principal, ref);
  if (!held.ok()) return held.status();
  OpenSession* const session = held->session.get();
  const auto rewind = [&]() -> absl::StatusOr<RewindCost> {
    if (position < 0 || position > session->content.num_tokens()) {
      return BadPosition(position, session->content.num_tokens());
    }
    Rewound record{.position = position, .checkpoints = CutTo(session->content.checkpoints, position)};
    RewindCost cost;
    cost.position = position;
    cost.snapshot_position = record.checkpoints.empty() ? 0 : record.checkpoints.back().position;
    cost.tokens_to_compute = position - cost.snapshot_position;
    if (dry_run || position == session->content.num_tokens()) return cost;
    const std::vector<Checkpoint> before = session->content.checkpoints;
    if (absl::Status status = Append(session, std::move(record)); !status.ok()) return status;
    DropKeys(session, before);
    CompactIfWorthwhile(session);
    return cost;
  };
  auto cost = rewind();
  ReleaseLease(session);
  return cost;
}

absl::Status SessionStore::MoveTo(OpenSession* session, Durability durability) {
  SessionArchive* const from = session->archive;
  SessionArchive* const to = ArchiveFor(durability);
  const SessionMeta old_meta = session->meta;
  session->meta.durability = durability;
  KeepFor(to, session->content.checkpoints);
  const int64_t old_records = std::exchange(session->num_records, 0);
  const int64_t old_bytes = std::exchange(session->record_bytes, 0);
  const auto undo = [&] {
    (void)to->Remove(session->id, 0);
    session->archive = from;
    session->num_records = old_records;
    session->record_bytes = old_bytes;
    session->meta = old_meta;
    session->is_read = false;
  };
  session->archive = to;
  session->meta.num_records = session->meta.forked_at = 0;
  session->meta.has_base = !session->content.tokens.empty();
  absl::Status status = PutEntry(session);
  if (status.ok() && session->meta.has_base) status = Append(session, session->content);
  if (!status.ok()) {
    undo();
    return status;
  }
  // Two archives would disagree after the next turn.
  status = from->Remove(session->id, session->lease.fence);
  if (!status.ok()) {
    const absl::Status there = from->FindEntry(session->entry.principal, session->id).status();
    if (there.ok()) {
      undo();
      return status;
    }
    // It may be gone from there: what was written here must stay.
    if (absl::IsNotFound(there)) status = absl::OkStatus();
  }
  if (!status.ok()) session->is_read = false;
  session->lease = {};  // of an archive that it left
  return status;
}

absl::StatusOr<SessionInfo> SessionStore::Update(std::string_view principal, std::string_view ref,
                                                 const SessionChange& change) {
  auto held = Hold(principal, ref, Access::kAppend);
  if (!held.ok()) return held.status();
  OpenSession* const session = held->session.get();
  std::unique_lock<std::mutex> naming(naming_mu_, std::defer_lock);
  if (change.name.has_value() && *change.name != session->entry.name) {
    // Both by std::lock, so that neither is held while waiting for the other.
    held->lock.unlock();
    std::lock(naming, held->lock);
    if (absl::Status status = Refresh(session); !status.ok()) return status;
  }
  const Durability durability = change.durability.value_or(Durability::kDefault);
  const bool moves = durability != Durability::kDefault && ArchiveFor(durability) != session->archive;
  if (!moves) return ChangeTo(session, change);
  // Nobody else may append to what is copied and then removed.
  if (session->is_busy) return Busy("session: a turn is under way; wait for its end", absl::Seconds(1));
  const absl::Status leased = AcquireLease(session);
  auto changed = leased.ok() ? ChangeTo(session, change) : absl::StatusOr<SessionInfo>(leased);
  ReleaseLease(session);
  return changed;
}

absl::StatusOr<SessionInfo> SessionStore::ChangeTo(OpenSession* session, const SessionChange& change) {
  SessionSpec spec = InfoOf(session).spec;
  spec.name = change.name.value_or(spec.name);
  spec.labels = change.labels.value_or(spec.labels);
  spec.ttl = change.ttl.value_or(spec.ttl);
  spec.pinned = change.pinned.value_or(spec.pinned);
  spec.shared = change.shared.value_or(spec.shared);
  if (change.durability.value_or(Durability::kDefault) != Durability::kDefault) spec.durability = *change.durability;
  SessionSpec changed = spec;
  if (spec.name == session->entry.name) changed.name.clear();  // it may be older than what is asked of names
  if (absl::Status status = CheckSpec(changed); !status.ok()) return status;
  if (spec.name != session->entry.name) {
    if (absl::Status status = CheckName(spec.principal, spec.name); !status.ok()) return status;
  }
  const auto apply = [&change, &spec](SessionEntry* entry, SessionMeta* meta) {
    entry->name = change.name.value_or(entry->name);
    meta->labels = change.labels.value_or(meta->labels);
    meta->ttl = change.ttl.value_or(meta->ttl);
    meta->pinned = change.pinned.value_or(meta->pinned);
    meta->shared = change.shared.value_or(meta->shared);
    meta->durability = spec.durability;
  };
  if (ArchiveFor(spec.durability) == session->archive) {
    if (spec.durability == Durability::kSync && session->has_unsynced) {
      if (absl::Status status = session->archive->Sync(); !status.ok()) return status;
      session->has_unsynced = false;
    }
    if (absl::Status status = ChangeEntry(session, apply); !status.ok()) return status;
    return InfoOf(session);
  }
  const SessionEntry old_entry = session->entry;
  const SessionMeta old_meta = session->meta;
  apply(&session->entry, &session->meta);
  if (absl::Status status = MoveTo(session, spec.durability); !status.ok()) {
    session->entry = old_entry;
    session->meta = old_meta;
    return status;
  }
  return InfoOf(session);
}

absl::StatusOr<SessionImage> SessionStore::Export(std::string_view principal, std::string_view ref) {
  SessionImage image;
  std::vector<Checkpoint> checkpoints;
  {
    const auto held = Hold(principal, ref, Access::kRead);
    if (!held.ok()) return held.status();
    const SessionContent& content = held->session->content;
    image.spec = InfoOf(held->session.get()).spec;
    image.tokens = content.tokens;
    image.turns = SpansOf(content);
    checkpoints = UsableAt(content, content.num_tokens(), /*needs_logits=*/false);
  }
  // One that cannot be had is replaced by an older one: it costs a replay where the session goes.
  TurnRequest request;
  request.allow_other_numeric = true;
  Turn turn(this, nullptr);
  turn.prompt_ = image.tokens;
  if (absl::Status status = FetchStart(request, std::move(checkpoints), &turn); !status.ok()) return status;
  SayIfContinued(&turn);
  image.snapshot = turn.from_;
  image.exactness = turn.exactness_;
  image.numeric_difference = turn.numeric_difference_;
  return image;
}

absl::StatusOr<SessionInfo> SessionStore::Adopt(const SessionSpec& spec, const SessionImage& image) {
  SessionContent content;
  content.tokens = image.tokens;
  int64_t end = 0;
  for (const TurnSpan& span : image.turns) {
    if (span.input_begin < end || span.answer_begin < span.input_begin || span.end < span.answer_begin ||
        span.end > content.num_tokens()) {
      return InvalidField("turns", absl::StrCat("a turn of [", span.input_begin, ", ", span.end, ")"),
                          absl::StrCat("turns in order within ", content.num_tokens(), " tokens"));
    }
    end = span.end;
    KeptTurn& turn = content.turns.emplace_back();
    turn.input_begin = span.input_begin;
    turn.answer_begin = span.answer_begin;
    turn.end = span.end;
    turn.seed = span.seed;
    turn.at = clock_->Now();
  }
  const bool keeps = image.snapshot != nullptr && options_.vault != nullptr;
  if (keeps) {
    const std::span<const int32_t> tokens = image.snapshot->tokens();
    if (tokens.size() > content.tokens.size() || !std::equal(tokens.begin(), tokens.end(), content.tokens.begin())) {
      return InvalidField("snapshot", "one of other tokens", "a snapshot of the session's beginning");
    }
    content.checkpoints = {NewCheckpoint(*image.snapshot)};
    const bool durable = ArchiveFor(DurabilityOf(spec)) != &memory_;
    absl::Status status = options_.vault->Keep(content.checkpoints[0].key, image.snapshot, durable);
    if (!status.ok()) return status;
  }
  const std::string key = keeps ? content.checkpoints[0].key : "";
  auto info = Insert(spec, std::move(content), "");
  if (!info.ok() && keeps) {
    SnapshotVault::Removed removed;
    (void)options_.vault->Drop(key, &removed);
  }
  return info;
}

}  // namespace statehouse
