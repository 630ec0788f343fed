#include "engine/sessions/folder_archive.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/sessions/lease_rules.h"

namespace statehouse {
namespace {

constexpr int kMaxTries = 32;
constexpr size_t kMaxStates = 100'000;

// As it is at a time: nobody's once it has run out.
SessionLease LeaseAt(absl::Time now, const std::string& owner, int64_t fence, absl::Time end) {
  return {.owner = now < end ? owner : "",
          .fence = fence,
          .expires = end,
          .left = std::max(absl::ZeroDuration(), end - now)};
}

std::string SessionPath(const std::string& id) { return FolderCatalog::SessionPath(id); }

}  // namespace

absl::StatusOr<std::unique_ptr<FolderArchive>> FolderArchive::Open(const std::string& folder) {
  auto opened = SharedFolder::Open(folder);
  if (!opened.ok()) return opened.status();
  for (const char* top : {"sessions", "principals", "names"}) {
    if (absl::Status status = (*opened)->MakeFolder(top); !status.ok()) return status;
  }
  return std::unique_ptr<FolderArchive>(new FolderArchive(*std::move(opened)));
}

absl::Status FolderArchive::Remove(std::string_view id_view, int64_t fence) {
  const std::string id(id_view);
  const auto entry = catalog_.Read(id);
  if (absl::IsNotFound(entry.status())) return absl::OkStatus();
  if (!entry.ok()) return entry.status();
  const auto state = Current(id);
  if (!state.ok() && !absl::IsDataLoss(state.status())) return state.status();
  if (state.ok() && !state->owner.empty() && state->fence != fence) {
    const auto now = folder_->Now();
    if (!now.ok()) return now.status();
    const auto end = log_.LeaseEnd(SessionPath(id), *state);
    if (!end.ok() && !absl::IsNotFound(end.status())) return end.status();
    if (end.ok() && *now < *end) return LeaseHeld(state->owner, *end - *now);
  }
  Remember(id, nullptr);
  return catalog_.Remove(*entry);
}

// --- the log ---

absl::StatusOr<LogState> FolderArchive::Current(const std::string& id) {
  LogState state;
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = states_.find(id); known != states_.end()) state = known->second;
  }
  absl::Status status = log_.CatchUp(SessionPath(id), &state);
  Remember(id, status.ok() ? &state : nullptr);
  if (absl::IsNotFound(status)) return NoSuchSession(id);
  if (!status.ok()) return status;
  return state;
}

void FolderArchive::Remember(const std::string& id, const LogState* state) {
  const std::lock_guard lock(mutex_);
  if (states_.size() > kMaxStates) states_.clear();
  if (state == nullptr) {
    states_.erase(id);
  } else {
    states_[id] = *state;
  }
}

absl::StatusOr<LogState> FolderArchive::Advance(const std::string& id,
                                                const std::function<LogEntry(const LogState&)>& make,
                                                const Decide& decide) {
  const std::string path = SessionPath(id);
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    auto state = Current(id);
    if (!state.ok()) return state.status();
    const auto lease_end = log_.LeaseEnd(path, *state);
    if (absl::IsNotFound(lease_end.status())) continue;
    if (!lease_end.ok()) return lease_end.status();
    absl::Status decided;
    const absl::Status put = log_.Put(path, make(*state), &*state,
                                      [&](absl::Time now) { return decided = decide(*state, now, *lease_end); });
    if (!decided.ok()) return decided;
    Remember(id, put.ok() ? &*state : nullptr);
    if (put.ok()) return state;
    // Another server was faster, or the generation has gone.
    if (!absl::IsAlreadyExists(put) && !absl::IsNotFound(put)) return put;
  }
  return Busy(absl::StrCat("session ", id, " changes too fast"), absl::Seconds(1));
}

absl::Status FolderArchive::Append(std::string_view id, int64_t number, int64_t fence, std::string_view record, bool) {
  const LogEntry entry{.kind = LogEntry::Kind::kRecord, .number = number, .record = std::string(record)};
  return Advance(
             std::string(id), [&entry](const LogState&) { return entry; },
             [&](const LogState& state, absl::Time now, absl::Time lease_end) {
               absl::Status status = MayWrite(fence, {state.owner, state.fence, lease_end, lease_end - now}, now);
               if (status.ok() && number != state.last + 1) status = NotTheLast(number - 1, state.last);
               return status;
             })
      .status();
}

absl::StatusOr<SessionArchive::Records> FolderArchive::Read(std::string_view id_view) {
  const std::string id(id_view);
  Records records;
  const auto state = log_.Load(SessionPath(id), &records.records);
  if (absl::IsNotFound(state.status())) return NoSuchSession(id);
  if (!state.ok()) return state.status();
  Remember(id, &*state);
  records.first = state->first;
  return records;
}

absl::Status FolderArchive::Compact(std::string_view id_view, int64_t number, int64_t fence, std::string_view record) {
  const std::string id(id_view);
  const auto sealed = Advance(
      id,
      [&](const LogState&) {
        return LogEntry{.kind = LogEntry::Kind::kSeal, .number = number, .record = std::string(record)};
      },
      [&](const LogState& state, absl::Time now, absl::Time lease_end) {
        absl::Status status = MayWrite(fence, {state.owner, state.fence, lease_end, lease_end - now}, now);
        if (status.ok() && number != state.last) status = NotTheLast(number, state.last);
        return status;
      });
  if (!sealed.ok()) return sealed.status();
  // The next generation: whoever comes next would make it, too.
  return Current(id).status();
}

// --- leases ---

absl::StatusOr<SessionLease> FolderArchive::Acquire(std::string_view id, const std::string& owner, absl::Duration ttl) {
  absl::Time acquired;
  const auto state = Advance(
      std::string(id),
      [&](const LogState& before) {
        return LogEntry{.kind = LogEntry::Kind::kLease,
                        .number = 0,
                        .fence = before.fence + 1,
                        .owner = owner,
                        .ttl = ttl,
                        .record = ""};
      },
      [&](const LogState& before, absl::Time now, absl::Time lease_end) {
        acquired = now;
        const bool held = !before.owner.empty() && before.owner != owner && now < lease_end;
        return held ? LeaseHeld(before.owner, lease_end - now) : absl::OkStatus();
      });
  if (!state.ok()) return state.status();
  return SessionLease{.owner = owner, .fence = state->fence, .expires = acquired + ttl, .left = ttl};
}

absl::StatusOr<SessionLease> FolderArchive::Renew(std::string_view id_view, const SessionLease& lease,
                                                  absl::Duration ttl) {
  const std::string id(id_view);
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    auto state = Current(id);
    if (!state.ok()) return state.status();
    if (state->owner.empty() || state->fence != lease.fence) return LeaseLost(lease.fence, state->owner, state->fence);
    absl::Status status;
    if (state->ttl == ttl) {
      status = log_.TouchLease(SessionPath(id), *state);
      if (status.ok()) {
        state = Current(id);
        if (!state.ok()) return state.status();
        if (state->fence != lease.fence) return LeaseLost(lease.fence, state->owner, state->fence);
      }
    } else {
      const LogEntry entry{.kind = LogEntry::Kind::kLease,
                           .number = 0,
                           .fence = lease.fence,
                           .owner = state->owner,
                           .ttl = ttl,
                           .record = ""};
      status = log_.Put(SessionPath(id), entry, &*state, nullptr);
      Remember(id, status.ok() ? &*state : nullptr);
    }
    if (status.ok()) {
      const auto end = log_.LeaseEnd(SessionPath(id), *state);
      if (end.ok()) return SessionLease{.owner = state->owner, .fence = state->fence, .expires = *end, .left = ttl};
      status = end.status();
    }
    // Another server was faster, or the generation has gone.
    if (!absl::IsAlreadyExists(status) && !absl::IsNotFound(status)) return status;
  }
  return Busy(absl::StrCat("session ", id, " changes too fast"), absl::Seconds(1));
}

absl::Status FolderArchive::Release(std::string_view id, const SessionLease& lease) {
  const absl::Status gone = absl::FailedPreconditionError("it is another's by now");
  const auto state = Advance(
      std::string(id),
      [&](const LogState& before) {
        return LogEntry{.kind = LogEntry::Kind::kRelease,
                        .number = 0,
                        .fence = before.fence,
                        .owner = "",
                        .ttl = absl::ZeroDuration(),
                        .record = ""};
      },
      [&](const LogState& before, absl::Time, absl::Time) {
        return before.owner.empty() || before.fence != lease.fence ? gone : absl::OkStatus();
      });
  const bool over = state.ok() || state.status() == gone || absl::IsNotFound(state.status());
  return over ? absl::OkStatus() : state.status();
}

absl::StatusOr<SessionLease> FolderArchive::GetLease(std::string_view id_view) {
  const std::string id(id_view);
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    const auto state = Current(id);
    if (!state.ok()) return state.status();
    if (state->owner.empty()) return LeaseAt(absl::InfiniteFuture(), "", state->fence, absl::InfinitePast());
    const auto now = folder_->Now();
    if (!now.ok()) return now.status();
    const auto end = log_.LeaseEnd(SessionPath(id), *state);
    if (absl::IsNotFound(end.status())) continue;
    if (!end.ok()) return end.status();
    return LeaseAt(*now, state->owner, state->fence, *end);
  }
  return Busy(absl::StrCat("session ", id, " changes too fast"), absl::Seconds(1));
}

absl::StatusOr<SessionLease> FolderArchive::Break(std::string_view id) {
  SessionLease was;
  const auto state = Advance(
      std::string(id),
      [&](const LogState& before) {
        return LogEntry{.kind = LogEntry::Kind::kBreak,
                        .number = 0,
                        .fence = before.fence + 1,
                        .owner = "",
                        .ttl = absl::ZeroDuration(),
                        .record = ""};
      },
      [&](const LogState& before, absl::Time now, absl::Time lease_end) {
        was = LeaseAt(now, before.owner, before.fence, lease_end);
        return absl::OkStatus();
      });
  if (!state.ok()) return state.status();
  return was;
}

}  // namespace statehouse
