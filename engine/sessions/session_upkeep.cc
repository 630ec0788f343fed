// What goes on beside turns: writing behind, leases, ends of lives, garbage, and giving everything away.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/sessions/open_session.h"
#include "engine/sessions/session.h"
#include "engine/sessions/session_store.h"

namespace statehouse {
namespace {

constexpr int64_t kPage = 1000;
constexpr absl::Duration kSummaryPeriod = absl::Seconds(10);
constexpr int64_t kSummariesAtATime = 64;
constexpr absl::Duration kExpirePeriod = absl::Minutes(1);
constexpr absl::Duration kSharedExpirePeriod = absl::Minutes(10);  // all entries cross a network
constexpr absl::Duration kWarningPeriod = absl::Minutes(1);
// What is younger may be about to be named by a record, unless it was written before this process began, on a disk that
// is its own; a file's time may be that much behind.
constexpr absl::Duration kGarbageAge = absl::Hours(1);
constexpr absl::Duration kFileTimeSlack = absl::Seconds(1);

}  // namespace

std::vector<std::shared_ptr<OpenSession>> SessionStore::OpenSessions() {
  std::lock_guard<std::mutex> lock(mu_);
  std::vector<std::shared_ptr<OpenSession>> sessions;
  for (const auto& [id, session] : open_) sessions.push_back(session);
  return sessions;
}

void SessionStore::Repeat(absl::Duration period, const std::function<void()>& work) {
  std::unique_lock<std::mutex> lock(mu_);
  while (!stop_.wait_for(lock, absl::ToChronoNanoseconds(period), [this] { return stopping_; })) {
    lock.unlock();
    // What fails is tried again; who needs it to have happened is told by their own call.
    work();
    lock.lock();
  }
}

void SessionStore::RunUpkeep() {
  const absl::Duration period = std::max(absl::Milliseconds(5), std::min(options_.async_lag / 2, options_.lease / 3));
  Repeat(period, [this] { (void)Upkeep(); });
}

void SessionStore::RunHousekeeping() {
  const bool is_shared = options_.archive != nullptr && options_.archive->is_shared();
  const absl::Duration expire_period = is_shared ? kSharedExpirePeriod : kExpirePeriod;
  absl::Time next_expiry = absl::Now() + expire_period;
  Repeat(kSummaryPeriod, [&] {
    NoteUpkeep("summaries", WriteSummaries(/*all=*/false));
    if (absl::Now() < next_expiry) return;
    NoteUpkeep("ends of lives", Expire().status());
    next_expiry = absl::Now() + expire_period;
  });
}

void SessionStore::NoteUpkeep(const char* what, const absl::Status& status) {
  if (status.ok()) return;
  const std::string text = absl::StrCat(what, ": ", std::string(status.message()));
  {
    std::lock_guard<std::mutex> lock(mu_);
    ++upkeep_failures_;
    last_upkeep_failure_ = text;
    if (absl::Now() < next_warning_) return;
    next_warning_ = absl::Now() + kWarningPeriod;
  }
  if (options_.on_upkeep_failure != nullptr) options_.on_upkeep_failure(text);
}

absl::Status SessionStore::Upkeep() {
  absl::Status status = absl::OkStatus();
  if (has_unsynced_.exchange(false)) {
    status = options_.archive->Sync();
    if (!status.ok()) has_unsynced_.store(true);
    NoteUpkeep("writing behind", status);
  }
  const absl::Status renewed = RenewLeases();
  return status.ok() ? renewed : status;
}

absl::Status SessionStore::RenewLeases() {
  absl::Status first = absl::OkStatus();
  if (options_.archive == nullptr || !options_.archive->is_shared()) return first;
  for (const auto& session : OpenSessions()) {
    // One that is in use now has its turn at the next call: it must not keep the others from theirs.
    std::unique_lock<std::mutex> lock(session->mu, std::try_to_lock);
    if (!lock.owns_lock() || !session->is_busy || session->lease.owner.empty()) continue;
    const absl::Time asked = absl::Now();
    if (asked - session->lease_asked < options_.lease / 6) continue;
    auto renewed = options_.archive->Renew(session->id, session->lease, options_.lease);
    const absl::Status status = renewed.status();
    if (status.ok()) {
      session->lease = *std::move(renewed);
      session->lease_asked = asked;
    }
    lock.unlock();
    NoteUpkeep("a lease", status);
    if (first.ok()) first = status;
  }
  return first;
}

absl::Status SessionStore::WriteSummaries(bool all) {
  absl::Status first = absl::OkStatus();
  int64_t left = all ? INT64_MAX : kSummariesAtATime;
  std::vector<std::shared_ptr<OpenSession>> sessions = OpenSessions();
  if (!all) {
    std::lock_guard<std::mutex> lock(mu_);
    const auto next = std::find_if(sessions.begin(), sessions.end(),
                                   [this](const auto& session) { return session->id > summaries_after_; });
    std::rotate(sessions.begin(), next, sessions.end());
  }
  for (const auto& session : sessions) {
    if (!session->has_stale_entry) continue;
    if (left-- == 0) break;
    std::unique_lock<std::mutex> lock(session->mu, std::try_to_lock);
    if (!lock.owns_lock()) {
      if (!all) continue;
      lock.lock();
    }
    absl::Status status = WriteSummary(session.get());
    if (first.ok()) first = status;
    if (all) continue;
    std::lock_guard<std::mutex> table(mu_);
    summaries_after_ = session->id;
  }
  return first;
}

absl::Status SessionStore::WriteSummary(OpenSession* session) {
  if (session->is_deleted || session->is_busy || !session->is_read || !session->has_stale_entry) {
    return absl::OkStatus();
  }
  // Where others append too, a lease keeps them from doing so between reading and writing.
  absl::Status status = AcquireLease(session);
  if (status.ok()) status = PutEntry(session);
  ReleaseLease(session);
  if (absl::IsNotFound(status)) session->has_stale_entry = false;
  // One that another server has now, or has removed, is its business.
  return absl::IsAborted(status) || absl::IsNotFound(status) ? absl::OkStatus() : status;
}

absl::StatusOr<int64_t> SessionStore::Expire() {
  int64_t expired = 0;
  BytesByOwner seen;
  for (SessionArchive* const archive : archives()) {
    const auto visit = [&](const SessionEntry& entry) -> absl::StatusOr<bool> {
      {
        std::lock_guard<std::mutex> lock(mu_);
        if (stopping_) return false;
      }
      const auto meta = ParseMeta(entry.meta);
      if (!meta.ok()) return true;
      // What an entry says of the last turn may trail behind the records, and never runs ahead of them.
      if (!meta->pinned && clock_->Now() - meta->last_turn >= meta->ttl && ExpireOne(entry)) {
        ++expired;
      } else {
        seen[entry.principal][entry.id] = meta->snapshot_bytes;
      }
      return true;
    };
    if (absl::Status status = ForEachEntry(archive, nullptr, visit); !status.ok()) return status;
  }
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (stopping_) return expired;  // not all were seen
  }
  TakeBytes(std::move(seen));
  return expired;
}

bool SessionStore::ExpireOne(const SessionEntry& entry) {
  auto held = HoldToAppend(entry.principal, entry.id);
  if (!held.ok()) return false;  // in use, or damaged: an operator decides
  OpenSession* const session = held->session.get();
  const SessionInfo info = InfoOf(session);
  if (info.spec.pinned || clock_->Now() - info.last_turn < info.spec.ttl) {
    ReleaseLease(session);
    return false;
  }
  auto removed = Remove(session);
  ReleaseLease(session);
  held->lock.unlock();
  if (!removed.ok()) return false;
  (void)DropFamilyKeys(*session, &*removed);  // what stays is left to CollectGarbage()
  return true;
}

void SessionStore::TakeBytes(BytesByOwner seen) {
  if (options_.max_bytes_per_principal <= 0) return;
  std::lock_guard<std::mutex> lock(mu_);
  for (const auto& [principal, sessions] : bytes_) {
    for (const auto& [id, bytes] : sessions) {
      if (open_.contains(id)) seen[principal][id] = bytes;
    }
  }
  bytes_ = std::move(seen);
}

absl::StatusOr<GarbageReport> SessionStore::CollectGarbage() {
  GarbageReport report;
  const auto expired = Expire();
  if (!expired.ok()) return expired.status();
  report.expired_sessions = *expired;
  if (options_.vault == nullptr) return report;
  std::set<std::string> named;
  for (SessionArchive* const archive : archives()) {
    const auto visit = [&](const SessionEntry& entry) -> absl::StatusOr<bool> {
      const auto held = Hold(entry.principal, entry.id, Access::kRead);
      if (absl::IsNotFound(held.status()) || absl::IsDataLoss(held.status())) return true;
      // One that cannot be read now, or not by this server, may name any.
      if (!held.ok()) return held.status();
      for (const Checkpoint& checkpoint : held->session->content.checkpoints) named.insert(checkpoint.key);
      return true;
    };
    if (absl::Status status = ForEachEntry(archive, nullptr, visit); !status.ok()) return status;
  }
  for (const Tier tier : {Tier::kDisk, Tier::kStore}) {
    std::string after;
    for (bool more = true; more;) {
      const auto blobs = options_.vault->List(tier, after, kPage);
      if (absl::IsNotFound(blobs.status()) || absl::IsFailedPrecondition(blobs.status())) break;  // no such tier
      if (!blobs.ok()) return blobs.status();
      more = !blobs->empty();
      for (const BlobInfo& blob : *blobs) {
        after = blob.key;
        if (named.contains(blob.key)) continue;
        // Those of the prefix cache are in use as long as it lives; a process that died left its own behind.
        if (SnapshotVault::IsPrefixKey(blob.key) && blob.modified >= opened_) continue;
        const bool is_earlier = tier == Tier::kDisk && blob.modified < opened_ - kFileTimeSlack;
        if (!is_earlier && clock_->Now() - blob.modified < kGarbageAge) {
          ++report.too_young.snapshots[static_cast<size_t>(tier)];
          report.too_young.bytes[static_cast<size_t>(tier)] += blob.bytes;
          continue;
        }
        if (absl::Status status = options_.vault->Drop(blob.key, &report.removed); !status.ok()) return status;
      }
    }
  }
  return report;
}

absl::Status SessionStore::CheckOne(const SessionEntry& entry, SessionArchive* archive, SessionReport* report) {
  ++report->sessions;
  const std::shared_ptr<OpenSession> session = Opened({.archive = archive, .entry = entry});
  std::vector<Checkpoint> checkpoints;
  {
    std::lock_guard<std::mutex> lock(session->mu);
    if (session->is_deleted) return absl::OkStatus();
    // Also what is in memory is read again.
    absl::Status status = session->is_busy ? Refresh(session.get()) : ReadRecords(session.get());
    if (absl::IsNotFound(status)) return absl::OkStatus();
    if (absl::IsUnavailable(status)) return status;
    if (!status.ok()) {
      report->damages.push_back({.session = entry.id, .part = "journal", .what = std::string(status.message())});
      return absl::OkStatus();
    }
    checkpoints = session->content.checkpoints;
  }
  if (options_.vault == nullptr) return absl::OkStatus();
  int64_t sound = 0;  // the deepest so far
  for (const Checkpoint& checkpoint : checkpoints) {
    ++report->snapshots;
    report->bytes += checkpoint.bytes;
    const std::string cost = absl::StrCat("; ", checkpoint.position - sound, " tokens are computed again");
    bool is_held = options_.vault->Where(checkpoint.key) == Tier::kHost;
    for (const Tier tier : {Tier::kDisk, Tier::kStore}) {
      const absl::Status status = options_.vault->Verify(checkpoint.key, tier);
      is_held = is_held || status.ok();
      if (!absl::IsDataLoss(status)) continue;
      report->damages.push_back({.session = entry.id,
                                 .part = "snapshot",
                                 .position = checkpoint.position,
                                 .tier = tier,
                                 .what = absl::StrCat(std::string(status.message()), cost)});
    }
    if (is_held) {
      sound = checkpoint.position;
    } else {
      report->damages.push_back({.session = entry.id,
                                 .part = "snapshot",
                                 .position = checkpoint.position,
                                 .what = absl::StrCat("it is in no tier that answers", cost)});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SessionReport> SessionStore::Check(std::string_view principal, std::string_view ref) {
  SessionReport report;
  if (!ref.empty()) {
    const auto found = FindEntry(principal, ref, Access::kRead);
    if (!found.ok()) return found.status();
    if (absl::Status status = CheckOne(found->entry, found->archive, &report); !status.ok()) return status;
    return report;
  }
  const std::string owner(principal);
  for (SessionArchive* const archive : archives()) {
    const auto visit = [&](const SessionEntry& entry) -> absl::StatusOr<bool> {
      if (absl::Status status = CheckOne(entry, archive, &report); !status.ok()) return status;
      return true;
    };
    if (absl::Status status = ForEachEntry(archive, &owner, visit); !status.ok()) return status;
  }
  return report;
}

absl::StatusOr<std::string> SessionStore::BreakLease(std::string_view principal, std::string_view ref, bool of_anyone) {
  const auto found = FindEntry(principal, ref, of_anyone ? Access::kOperate : Access::kAppend);
  if (!found.ok()) return found.status();
  const auto lease = found->archive->Break(found->entry.id);
  if (!lease.ok()) return lease.status();
  return lease->owner;
}

absl::Status SessionStore::Drain(absl::Time until) {
  {
    std::unique_lock<std::mutex> lock(mu_);
    draining_ = true;
    const auto is_idle = [this] { return busy_ == 0; };
    if (until == absl::InfiniteFuture()) {
      turn_ended_.wait(lock, is_idle);
    } else if (!turn_ended_.wait_until(lock, absl::ToChronoTime(until), is_idle)) {
      return absl::DeadlineExceededError(absl::StrCat("sessions: ", busy_, " turns are still under way"));
    }
  }
  absl::Status first = Upkeep();
  const absl::Status summaries = WriteSummaries(/*all=*/true);
  if (first.ok()) first = summaries;
  if (options_.vault == nullptr) return first;
  struct Leaving {
    std::vector<std::string> keys;  // the head's first
    bool is_shared = false;
  };
  std::vector<Leaving> leaving;
  for (const auto& session : OpenSessions()) {
    std::lock_guard<std::mutex> lock(session->mu);
    if (session->is_deleted || !session->is_read || session->archive == &memory_) continue;
    Leaving& one = leaving.emplace_back();
    one.is_shared = session->archive->is_shared();
    const std::vector<Checkpoint>& checkpoints = session->content.checkpoints;
    for (auto it = checkpoints.rbegin(); it != checkpoints.rend(); ++it) one.keys.push_back(it->key);
  }
  int64_t left = 0;
  const auto flush = [&](const std::string& key, bool is_shared) {
    const absl::Status status = options_.vault->Flush(key, is_shared, until);
    if (status.ok() || absl::IsNotFound(status) || absl::IsFailedPrecondition(status)) return;
    ++left;
    if (first.ok()) first = status;
  };
  // All heads first: the older ones only save going back from being computed again.
  for (const Leaving& one : leaving) {
    if (!one.keys.empty()) flush(one.keys[0], one.is_shared);
  }
  for (const Leaving& one : leaving) {
    for (size_t idx = 1; idx < one.keys.size(); ++idx) flush(one.keys[idx], one.is_shared);
  }
  if (left == 0) return first;
  return absl::Status(first.code(), absl::StrCat(std::string(first.message()), "; ", left,
                                                 " snapshots stay here, and are computed again elsewhere"));
}

}  // namespace statehouse
