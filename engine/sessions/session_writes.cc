// How the store writes: entries, records, and snapshots that nothing names any more.
#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/sessions/open_session.h"
#include "engine/sessions/session.h"
#include "engine/sessions/session_store.h"

namespace statehouse {
namespace {

constexpr size_t kMaxNameBytes = 128;
constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelBytes = 256;
// Records that a compaction would not make shorter by as much are left.
constexpr int64_t kSlackBytes = 4096;

}  // namespace

absl::Status SessionStore::CheckSpec(const SessionSpec& spec) const {
  if (spec.name.size() > kMaxNameBytes || IsSessionId(absl::AsciiStrToLower(spec.name))) {
    return InvalidField("session.name", absl::StrCat("a name of ", spec.name.size(), " bytes"),
                        absl::StrCat("at most ", kMaxNameBytes, " bytes, and not 32 hexadecimal digits"));
  }
  // Names stand in lists and logs, a line each.
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (std::any_of(spec.name.begin(), spec.name.end(), is_control)) {
    return InvalidField("session.name", absl::StrCat("a name of ", spec.name.size(), " bytes with a control character"),
                        "no line ends, tabs or other control characters");
  }
  if (spec.labels.size() > kMaxLabels) {
    return InvalidField("session.labels", absl::StrCat(spec.labels.size(), " labels"),
                        absl::StrCat("at most ", kMaxLabels));
  }
  for (const auto& [key, value] : spec.labels) {
    if (key.empty() || key.size() > kMaxLabelBytes || value.size() > kMaxLabelBytes) {
      return InvalidField("session.labels", absl::StrCat("a label of ", key.size(), " and ", value.size(), " bytes"),
                          absl::StrCat("a key of 1 to ", kMaxLabelBytes, " bytes and a value of at most as many"));
    }
  }
  if (spec.ttl <= absl::ZeroDuration()) {
    return InvalidField("session.ttl", absl::FormatDuration(spec.ttl), "more than 0");
  }
  const bool survives = spec.durability == Durability::kAsync || spec.durability == Durability::kSync;
  if (survives && options_.archive == nullptr) {
    return InvalidField("session.durability", DurabilityName(spec.durability),
                        "memory: this server keeps no sessions on disk or in a store");
  }
  return absl::OkStatus();
}

absl::Status SessionStore::CheckName(std::string_view principal, const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  const auto found = FindEntry(principal, name, Access::kRead);
  if (absl::IsNotFound(found.status())) return absl::OkStatus();
  if (!found.ok()) return found.status();
  const auto meta = ParseMeta(found->entry.meta);
  if (meta.ok() && meta->has_base && meta->num_records == 0) {  // perhaps it never came to be
    if (absl::IsNotFound(Hold(principal, name, Access::kRead).status())) return absl::OkStatus();
  }
  return absl::AlreadyExistsError(
      absl::StrCat("session.name: you have a session \"", name, "\"; choose another name, or delete it"));
}

absl::Status SessionStore::CheckQuota(std::string_view principal, int64_t more_sessions, int64_t more_bytes) {
  if (options_.max_sessions_per_principal > 0 && more_sessions > 0) {
    const std::string owner(principal);
    int64_t sessions = 0;
    for (SessionArchive* const archive : archives()) {
      const auto count = archive->CountEntries(owner);
      if (!count.ok()) return count.status();
      sessions += *count;
    }
    if (sessions + more_sessions > options_.max_sessions_per_principal) {  // before a refusal, exactly
      sessions = 0;
      for (SessionArchive* const archive : archives()) {
        const auto visit = [&sessions](const SessionEntry&) {
          ++sessions;
          return true;
        };
        if (absl::Status status = ForEachEntry(archive, &owner, visit); !status.ok()) return status;
      }
    }
    if (sessions + more_sessions > options_.max_sessions_per_principal) {
      return absl::ResourceExhaustedError(absl::StrCat("sessions: you have ", sessions, " of ",
                                                       options_.max_sessions_per_principal, "; delete one first"));
    }
  }
  if (options_.max_bytes_per_principal > 0 && more_bytes > 0) {
    std::lock_guard<std::mutex> lock(mu_);
    int64_t bytes = 0;
    if (const auto owner = bytes_.find(principal); owner != bytes_.end()) {
      for (const auto& [id, held] : owner->second) bytes += held;
    }
    if (bytes + more_bytes > options_.max_bytes_per_principal) {
      return absl::ResourceExhaustedError(
          absl::StrCat("sessions: your snapshots take ", bytes, " of ", options_.max_bytes_per_principal,
                       " bytes, and this needs up to ", more_bytes, " more; delete a session first"));
    }
  }
  return absl::OkStatus();
}

void SessionStore::CountBytes(const OpenSession& session, int64_t bytes) {
  if (options_.max_bytes_per_principal <= 0) return;
  std::lock_guard<std::mutex> lock(mu_);
  auto& owner = bytes_[session.entry.principal];
  if (bytes > 0) {
    owner[session.id] = bytes;
  } else {
    owner.erase(session.id);
  }
}

absl::StatusOr<SessionInfo> SessionStore::Insert(const SessionSpec& spec, SessionContent content,
                                                 const std::string& family) {
  if (absl::Status status = CheckSpec(spec); !status.ok()) return status;
  std::lock_guard<std::mutex> naming(naming_mu_);
  if (absl::Status status = CheckName(spec.principal, spec.name); !status.ok()) return status;
  if (absl::Status status = CheckQuota(spec.principal, 1, content.snapshot_bytes()); !status.ok()) return status;

  auto session = std::make_shared<OpenSession>(NewSessionId());
  std::lock_guard<std::mutex> lock(session->mu);
  SessionMeta& meta = session->meta;
  meta.durability = DurabilityOf(spec);
  session->archive = ArchiveFor(meta.durability);
  session->entry = {.id = session->id, .principal = spec.principal, .name = spec.name, .meta = ""};
  meta.labels = spec.labels;
  meta.ttl = spec.ttl;
  meta.pinned = spec.pinned;
  meta.shared = spec.shared;
  meta.created = meta.last_turn = clock_->Now();
  meta.family = family.empty() ? session->id : family;
  meta.has_base = !content.tokens.empty();
  session->is_read = true;
  {
    std::lock_guard<std::mutex> table(mu_);
    open_[session->id] = session;
    NoteUse(session.get());
  }
  absl::Status status = PutEntry(session.get());
  if (status.ok() && meta.has_base) {
    status = Append(session.get(), std::move(content));
    // Should this fail too: an entry that was to have records and has none counts as not there.
    if (!status.ok()) (void)session->archive->Remove(session->id, 0);
  }
  if (!status.ok()) {
    session->is_deleted = true;
    std::lock_guard<std::mutex> table(mu_);
    Close(session->id);
    return status;
  }
  return InfoOf(session.get());
}

absl::Status SessionStore::PutEntry(OpenSession* session) {
  SessionMeta& meta = session->meta;
  // What another server wrote meanwhile says more.
  if (session->is_read && session->num_records >= meta.num_records) {
    // What the summary promises must survive a crash before it does.
    bool is_durable = true;
    if (session->has_unsynced) is_durable = session->archive->Sync().ok();
    if (is_durable) {
      session->has_unsynced = false;
      meta.num_records = session->num_records;
    }
    meta.num_tokens = session->content.num_tokens();
    meta.turns = static_cast<int64_t>(session->content.turns.size());
    meta.snapshot_bytes = session->content.snapshot_bytes();
    if (meta.turns > 0) meta.last_turn = std::max(meta.last_turn, session->content.turns.back().at);
  }
  session->entry.meta = EncodeMeta(meta);
  absl::Status status = session->archive->PutEntry(session->entry);
  if (status.ok()) session->has_stale_entry = false;
  return status;
}

absl::StatusOr<bool> SessionStore::RefreshEntry(OpenSession* session) {
  if (!session->archive->is_shared()) return false;
  auto entry = session->archive->FindEntry(session->entry.principal, session->id);
  if (!entry.ok()) return absl::IsNotFound(entry.status()) ? NoneOfYours(session->id) : entry.status();
  auto meta = ParseMeta(entry->meta);
  if (!meta.ok()) return meta.status();
  const bool was_forked = meta->forked_at > session->meta.forked_at;
  session->entry = *std::move(entry);
  session->meta = *std::move(meta);
  if (was_forked) {
    for (Checkpoint& checkpoint : session->content.checkpoints) checkpoint.shared = true;
    session->meta.forked_at = std::max(session->meta.forked_at, session->num_records);
  }
  return was_forked;
}

absl::Status SessionStore::ChangeEntry(OpenSession* session,
                                       const std::function<void(SessionEntry*, SessionMeta*)>& change) {
  if (absl::Status status = RefreshEntry(session).status(); !status.ok()) return status;
  const SessionEntry old_entry = session->entry;
  const SessionMeta old_meta = session->meta;
  change(&session->entry, &session->meta);
  absl::Status status = PutEntry(session);
  if (!status.ok()) {
    session->entry = old_entry;
    session->meta = old_meta;
  }
  return status;
}

absl::Status SessionStore::Append(OpenSession* session, SessionRecord record) {
  const std::string bytes = EncodeRecord(record);
  const int64_t number = session->num_records + 1;
  const bool sync = session->meta.durability == Durability::kSync;
  absl::Status status = session->archive->Append(session->id, number, session->lease.fence, bytes, sync);
  if (absl::IsAborted(status) || absl::IsNotFound(status)) session->is_read = false;
  if (absl::IsUnavailable(status) || absl::IsInternal(status)) {
    // It may have happened.
    const auto kept = session->archive->Read(session->id);
    const bool landed = kept.ok() && !kept->records.empty() && kept->records.back() == bytes &&
                        kept->first + static_cast<int64_t>(kept->records.size()) - 1 == number;
    if (landed) {
      status = absl::OkStatus();
    } else {
      session->is_read = false;
      if (!kept.ok()) {
        status = absl::UnavailableError(
            absl::StrCat(std::string(status.message()), "; whether the session was changed is not known"));
      }
    }
  }
  if (!status.ok()) return status;
  status = Replay(std::move(record), &session->content);
  if (!status.ok()) {  // it was made from this very content
    session->is_read = false;
    return status;
  }
  session->num_records = number;
  session->record_bytes += static_cast<int64_t>(bytes.size());
  session->has_stale_entry = true;
  if (!sync && session->archive != &memory_) {
    session->has_unsynced = true;
    has_unsynced_.store(true);
  }
  CountBytes(*session, session->content.snapshot_bytes());
  return absl::OkStatus();
}

void SessionStore::DropKeys(OpenSession* session, const std::vector<Checkpoint>& before) {
  const std::vector<Checkpoint> dropped = Dropped(before, session->content.checkpoints);
  for (const Checkpoint& checkpoint : dropped) session->durable_keys.erase(checkpoint.key);
  if (options_.vault == nullptr || before.empty()) return;
  // What a fork may share, and what cannot be dropped now, is left to CollectGarbage().
  const auto was_forked = RefreshEntry(session);
  if (!was_forked.ok()) return;
  if (*was_forked) {
    (void)PutEntry(session);  // if it fails, and a later turn drops what the fork shares, that one computes it again
    return;
  }
  for (const Checkpoint& checkpoint : dropped) {
    SnapshotVault::Removed removed;
    if (!checkpoint.shared) (void)options_.vault->Drop(checkpoint.key, &removed);
  }
}

void SessionStore::KeepFor(const SessionArchive* archive, const std::vector<Checkpoint>& checkpoints) {
  if (options_.vault == nullptr || archive == &memory_) return;
  for (const Checkpoint& checkpoint : checkpoints) {
    // What is kept counts as exact.
    auto fetched = options_.vault->Fetch(checkpoint.key, /*allow_other_numeric=*/false);
    if (fetched.ok()) (void)options_.vault->Keep(checkpoint.key, fetched->snapshot, /*durable=*/true);
  }
}

void SessionStore::CompactIfWorthwhile(OpenSession* session) {
  SessionContent& content = session->content;
  const auto worthwhile = [&](int64_t live) { return session->record_bytes > 2 * live + kSlackBytes; };
  // Tokens take two bytes or more: a bound that is cheap to know comes first.
  if (!worthwhile(2 * content.num_tokens())) return;
  const absl::Time now = clock_->Now();
  for (KeptTurn& turn : content.turns) {
    if (now - turn.at < options_.keep_outcomes) continue;
    turn.key.clear();
    turn.digest.clear();
    turn.detail.clear();
  }
  const std::string whole = EncodeRecord(content);
  if (!worthwhile(static_cast<int64_t>(whole.size()))) return;
  // What fails here is tried again after the next turn: the records say the same, only at greater length.
  if (session->archive->Compact(session->id, session->num_records, session->lease.fence, whole).ok()) {
    session->record_bytes = static_cast<int64_t>(whole.size());
    session->has_unsynced = false;
  }
}

absl::StatusOr<SnapshotVault::Removed> SessionStore::Remove(OpenSession* session) {
  SnapshotVault::Removed removed;
  if (absl::Status status = session->archive->Remove(session->id, session->lease.fence); !status.ok()) return status;
  session->is_deleted = true;
  session->lease = {};
  CountBytes(*session, 0);
  for (const Checkpoint& checkpoint : session->content.checkpoints) {
    if (!checkpoint.shared && options_.vault != nullptr) (void)options_.vault->Drop(checkpoint.key, &removed);
  }
  std::lock_guard<std::mutex> lock(mu_);
  damaged_.erase(session->id);
  Close(session->id);
  return removed;
}

absl::Status SessionStore::DropFamilyKeys(const OpenSession& session, SnapshotVault::Removed* removed) {
  std::vector<Checkpoint> orphans = SharedOf(session.content.checkpoints);
  if (orphans.empty() || options_.vault == nullptr) return absl::OkStatus();
  for (SessionArchive* const archive : archives()) {
    const auto visit = [&](const SessionEntry& entry) -> absl::StatusOr<bool> {
      const auto meta = ParseMeta(entry.meta);
      if (!meta.ok() || meta->family != session.meta.family) return true;
      const std::shared_ptr<OpenSession> relative = Opened({.archive = archive, .entry = entry});
      std::lock_guard<std::mutex> lock(relative->mu);
      absl::Status status = Refresh(relative.get());
      if (absl::IsNotFound(status)) return true;
      if (!status.ok()) return status;
      orphans = Dropped(orphans, relative->content.checkpoints);
      return !orphans.empty();
    };
    if (absl::Status status = ForEachEntry(archive, nullptr, visit); !status.ok()) return status;
  }
  for (const Checkpoint& checkpoint : orphans) (void)options_.vault->Drop(checkpoint.key, removed);
  return absl::OkStatus();
}

}  // namespace statehouse
