// Finding and opening sessions, and reading of them. session_listing.cc, session_writes.cc, session_changes.cc,
// session_turn.cc and session_upkeep.cc are the rest of the store.
#include "engine/sessions/session_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/sessions/open_session.h"
#include "engine/sessions/session.h"

namespace statehouse {
namespace {

absl::Status Damaged(const std::string& id, std::string_view what) {
  return absl::DataLossError(absl::StrCat("session ", id, ": its records are damaged (", std::string(what),
                                          "); it is not used, and can only be deleted"));
}

}  // namespace

const char* DurabilityName(Durability durability) {
  switch (durability) {
    case Durability::kDefault:
      return "default";
    case Durability::kMemory:
      return "memory";
    case Durability::kAsync:
      return "async";
    case Durability::kSync:
      return "sync";
  }
  return "unknown";
}

SessionStore::SessionStore(const SessionStoreOptions& options)
    : options_(options), clock_(options.clock == nullptr ? Clock::Real() : options.clock), opened_(clock_->Now()) {}

absl::StatusOr<std::unique_ptr<SessionStore>> SessionStore::Open(const SessionStoreOptions& given) {
  SessionStoreOptions options = given;
  if (options.max_snapshots < 1) return InvalidField("max_snapshots", absl::StrCat(options.max_snapshots), ">= 1");
  if (options.max_open_sessions < 1) {
    return InvalidField("max_open_sessions", absl::StrCat(options.max_open_sessions), ">= 1");
  }
  if (options.default_durability == Durability::kDefault) {
    options.default_durability = options.archive == nullptr ? Durability::kMemory : Durability::kSync;
  }
  if (options.archive == nullptr && options.default_durability != Durability::kMemory) {
    return InvalidField("default_durability", DurabilityName(options.default_durability),
                        "memory: there is no folder or store for sessions");
  }
  std::unique_ptr<SessionStore> store(new SessionStore(options));
  if (options.archive != nullptr && options.max_bytes_per_principal > 0) {
    absl::Status status = ForEachEntry(options.archive, nullptr, [&](const SessionEntry& entry) {
      if (const auto meta = ParseMeta(entry.meta); meta.ok()) {
        store->bytes_[entry.principal][entry.id] = meta->snapshot_bytes;
      }
      return true;
    });
    if (!status.ok()) return status;
  }
  if (options.upkeep_thread) {
    store->upkeep_ = std::thread([raw = store.get()] { raw->RunUpkeep(); });
    store->housekeeping_ = std::thread([raw = store.get()] { raw->RunHousekeeping(); });
  }
  return store;
}

SessionStore::~SessionStore() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    stopping_ = true;
  }
  stop_.notify_all();
  if (upkeep_.joinable()) upkeep_.join();
  if (housekeeping_.joinable()) housekeeping_.join();
  // A last attempt: nobody is left to hear of a failure, and what was promised is written already.
  (void)Upkeep();
  (void)WriteSummaries(/*all=*/true);
}

std::vector<SessionArchive*> SessionStore::archives() {
  if (options_.archive == nullptr) return {&memory_};
  return {&memory_, options_.archive};
}

SessionArchive* SessionStore::ArchiveFor(Durability durability) {
  return durability == Durability::kMemory || options_.archive == nullptr ? &memory_ : options_.archive;
}

Durability SessionStore::DurabilityOf(const SessionSpec& spec) const {
  return spec.durability == Durability::kDefault ? options_.default_durability : spec.durability;
}

absl::StatusOr<SessionStore::Found> SessionStore::FindEntry(std::string_view principal, std::string_view ref,
                                                            Access access) {
  for (SessionArchive* const archive : archives()) {
    auto entry = archive->FindEntry(principal, ref);
    if (absl::IsNotFound(entry.status())) continue;
    if (!entry.ok()) return entry.status();
    if (entry->principal != principal && access != Access::kOperate) {
      const auto meta = ParseMeta(entry->meta);
      if (!meta.ok() || !meta->shared) return NoneOfYours(ref);
      if (access == Access::kAppend) {
        return absl::PermissionDeniedError("session: it belongs to somebody else and is shared for reading; fork it");
      }
    }
    return Found{.archive = archive, .entry = *std::move(entry)};
  }
  return NoneOfYours(ref);
}

std::shared_ptr<OpenSession> SessionStore::Opened(const Found& found) {
  std::shared_ptr<OpenSession> opened;
  std::vector<std::shared_ptr<OpenSession>> leaving;
  {
    std::lock_guard<std::mutex> lock(mu_);
    std::shared_ptr<OpenSession>& session = open_[found.entry.id];
    if (session == nullptr) {
      session = std::make_shared<OpenSession>(found.entry.id);
      session->archive = found.archive;
      session->entry = found.entry;
    }
    opened = session;
    NoteUse(opened.get());
    leaving = MakeRoom();
  }
  for (const std::shared_ptr<OpenSession>& session : leaving) {
    {
      std::unique_lock<std::mutex> lock(session->mu, std::try_to_lock);
      // If it fails, the entry trails until the session is used again.
      if (lock.owns_lock()) (void)WriteSummary(session.get());
    }
    std::lock_guard<std::mutex> lock(mu_);
    const auto found_again = open_.find(session->id);
    if (found_again == open_.end() || found_again->second != session) continue;
    if (session.use_count() == 2) Close(session->id);  // the table's and ours
  }
  return opened;
}

std::vector<std::shared_ptr<OpenSession>> SessionStore::MakeRoom() {
  std::vector<std::shared_ptr<OpenSession>> leaving;
  const auto excess = [&] { return static_cast<int64_t>(open_.size() - leaving.size()) - options_.max_open_sessions; };
  // References are only made under mu_, so nobody comes to hold one that only the table refers to.
  for (const bool also_stale : {false, true}) {
    for (auto oldest = by_use_.begin(); excess() > 0 && oldest != by_use_.end();) {
      const std::string id = (oldest++)->second;
      const std::shared_ptr<OpenSession>& session = open_.find(id)->second;
      if (session.use_count() > 1) continue;
      if (!session->has_stale_entry) {
        Close(id);
      } else if (also_stale) {
        leaving.push_back(session);
      }
    }
  }
  return leaving;
}

void SessionStore::NoteUse(OpenSession* session) {
  by_use_.erase(session->last_use);
  session->last_use = ++uses_;
  by_use_[session->last_use] = session->id;
}

void SessionStore::Close(const std::string& id) {
  const auto found = open_.find(id);
  if (found == open_.end()) return;
  by_use_.erase(found->second->last_use);
  open_.erase(found);
}

absl::Status SessionStore::ReadRecords(OpenSession* session) {
  session->is_read = false;
  auto entry = session->archive->FindEntry(session->entry.principal, session->id);
  if (!entry.ok()) return absl::IsNotFound(entry.status()) ? NoneOfYours(session->id) : entry.status();
  const auto damaged = [&](std::string_view what) {
    std::lock_guard<std::mutex> lock(mu_);
    damaged_[session->id] = std::string(what);
    return Damaged(session->id, what);
  };
  auto meta = ParseMeta(entry->meta);
  if (!meta.ok())
    return absl::IsDataLoss(meta.status()) ? damaged(std::string(meta.status().message())) : meta.status();
  auto kept = session->archive->Read(session->id);
  if (absl::IsDataLoss(kept.status())) return damaged(std::string(kept.status().message()));
  if (!kept.ok()) return absl::IsNotFound(kept.status()) ? NoneOfYours(session->id) : kept.status();

  SessionContent content;
  int64_t number = kept->first - 1;
  int64_t bytes = 0;
  for (const std::string& record : kept->records) {
    ++number;
    auto parsed = ParseRecord(record);
    if (absl::IsFailedPrecondition(parsed.status())) return parsed.status();
    absl::Status status = parsed.status();
    if (status.ok()) status = Replay(*std::move(parsed), &content);
    if (!status.ok()) return damaged(absl::StrCat("record ", number, ": ", std::string(status.message())));
    bytes += static_cast<int64_t>(record.size());
  }
  if (number < meta->num_records) {
    return damaged(absl::StrCat("they end at ", number, ", and ", meta->num_records, " were written"));
  }
  if (meta->has_base && kept->records.empty()) {  // a crash came between its entry and its tokens
    if (!session->archive->is_shared()) {
      if (absl::Status status = session->archive->Remove(session->id, 0); !status.ok()) return status;
      session->is_deleted = true;
    }
    return NoneOfYours(session->id);
  }
  if (meta->forked_at > 0 && number <= meta->forked_at) {
    for (Checkpoint& checkpoint : content.checkpoints) checkpoint.shared = true;
  }
  session->entry = *std::move(entry);
  session->meta = *std::move(meta);
  session->content = std::move(content);
  session->num_records = number;
  session->record_bytes = bytes;
  session->has_unsynced = session->meta.durability != Durability::kSync && session->archive != &memory_;
  session->is_read = true;
  // A crash came before it was written. Where others write entries too, whoever appends sees to it.
  if (!session->archive->is_shared()) {
    session->has_stale_entry = session->meta.num_records != number ||
                               session->meta.num_tokens != session->content.num_tokens() ||
                               session->meta.snapshot_bytes != session->content.snapshot_bytes();
  }
  CountBytes(*session, session->content.snapshot_bytes());
  std::lock_guard<std::mutex> lock(mu_);
  damaged_.erase(session->id);
  return absl::OkStatus();
}

absl::Status SessionStore::Refresh(OpenSession* session) {
  if (session->is_deleted) return NoneOfYours(session->id);
  const bool may_be_stale = session->archive->is_shared() && session->lease.owner.empty();
  return session->is_read && !may_be_stale ? absl::OkStatus() : ReadRecords(session);
}

absl::StatusOr<SessionStore::Held> SessionStore::Hold(std::string_view principal, std::string_view ref, Access access) {
  const auto found = FindEntry(principal, ref, access);
  if (!found.ok()) return found.status();
  Held held;
  held.session = Opened(*found);
  held.lock = std::unique_lock<std::mutex>(held.session->mu);
  if (absl::Status status = Refresh(held.session.get()); !status.ok()) {
    return absl::IsNotFound(status) ? NoneOfYours(ref) : status;
  }
  return held;
}

absl::StatusOr<SessionStore::Held> SessionStore::HoldToAppend(std::string_view principal, std::string_view ref) {
  const auto found = FindEntry(principal, ref, Access::kAppend);
  if (!found.ok()) return found.status();
  Held held;
  held.session = Opened(*found);
  held.lock = std::unique_lock<std::mutex>(held.session->mu);
  if (held.session->is_deleted) return NoneOfYours(ref);
  if (held.session->is_busy) {
    return Busy("session: a turn is under way; cancel it or wait for its end", absl::Seconds(1));
  }
  absl::Status status = AcquireLease(held.session.get());
  if (status.ok()) status = Refresh(held.session.get());
  if (!status.ok()) {
    ReleaseLease(held.session.get());
    return absl::IsNotFound(status) ? NoneOfYours(ref) : status;
  }
  return held;
}

absl::Status SessionStore::AcquireLease(OpenSession* session) {
  if (!session->archive->is_shared()) return absl::OkStatus();
  session->lease_asked = absl::Now();
  auto lease = session->archive->Acquire(session->id, options_.replica_id, options_.lease);
  if (!lease.ok()) return lease.status();
  session->lease = *std::move(lease);
  // Another server may have appended since the records were read.
  return ReadRecords(session);
}

void SessionStore::ReleaseLease(OpenSession* session) {
  if (session->lease.owner.empty()) return;
  // If it fails, the lease runs out by itself.
  (void)session->archive->Release(session->id, session->lease);
  session->lease = {};
}

SessionInfo SessionStore::InfoOf(OpenSession* session, bool with_checkpoints) {
  SessionInfo info;
  info.id = session->id;
  info.spec = {.principal = session->entry.principal,
               .name = session->entry.name,
               .labels = session->meta.labels,
               .ttl = session->meta.ttl,
               .pinned = session->meta.pinned,
               .durability = session->meta.durability,
               .shared = session->meta.shared};
  info.num_tokens = session->content.num_tokens();
  info.turns = static_cast<int64_t>(session->content.turns.size());
  for (const Checkpoint& checkpoint : session->content.checkpoints) {
    if (!with_checkpoints) break;
    const Tier tier = options_.vault == nullptr ? Tier::kNone : options_.vault->Where(checkpoint.key);
    info.checkpoints.push_back({.position = checkpoint.position, .bytes = checkpoint.bytes, .tier = tier});
  }
  info.snapshot_bytes = session->content.snapshot_bytes();
  info.created = session->meta.created;
  info.last_turn = std::max(session->meta.last_turn, session->meta.created);
  if (info.turns > 0) info.last_turn = std::max(info.last_turn, session->content.turns.back().at);
  info.busy = session->is_busy;
  info.lease = session->lease;
  info.lease.left = std::max(absl::ZeroDuration(), session->lease.left - (absl::Now() - session->lease_asked));
  return info;
}

absl::StatusOr<SessionInfo> SessionStore::Get(std::string_view principal, std::string_view ref) {
  const auto held = Hold(principal, ref, Access::kRead);
  if (!held.ok()) return held.status();
  OpenSession* const session = held->session.get();
  SessionInfo info = InfoOf(session);
  if (session->archive->is_shared() && session->lease.owner.empty()) {
    auto lease = session->archive->GetLease(session->id);
    if (!lease.ok()) return lease.status();
    info.lease = *std::move(lease);
  }
  return info;
}

absl::StatusOr<SessionTranscript> SessionStore::Transcript(std::string_view principal, std::string_view ref,
                                                           int64_t from, int64_t max) {
  const auto held = Hold(principal, ref, Access::kRead);
  if (!held.ok()) return held.status();
  const SessionContent& content = held->session->content;
  if (from < 0 || from > content.num_tokens()) {
    return InvalidField("from", absl::StrCat(from), absl::StrCat("a position in [0, ", content.num_tokens(), "]"));
  }
  const int64_t end = from + std::min(std::max<int64_t>(0, max), content.num_tokens() - from);
  SessionTranscript transcript;
  transcript.num_tokens = content.num_tokens();
  transcript.tokens.assign(content.tokens.begin() + from, content.tokens.begin() + end);
  for (const TurnSpan& span : SpansOf(content)) {
    if (span.input_begin < end && span.end > from) transcript.turns.push_back(span);
  }
  return transcript;
}

SessionTotals SessionStore::totals() {
  SessionTotals totals;
  std::lock_guard<std::mutex> lock(mu_);
  totals.open = static_cast<int64_t>(open_.size());
  totals.busy = busy_;
  totals.damaged = static_cast<int64_t>(damaged_.size());
  totals.upkeep_failures = upkeep_failures_;
  totals.last_upkeep_failure = last_upkeep_failure_;
  return totals;
}

}  // namespace statehouse
