#include "engine/sessions/memory_archive.h"

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

absl::Status NoSuch(std::string_view ref) {
  return absl::NotFoundError(absl::StrCat("no session \"", std::string(ref), "\""));
}

}  // namespace

absl::Status EntryTable::Check(const SessionEntry& entry) const {
  const auto owner = owners_.find(entry.principal);
  if (entry.name.empty() || owner == owners_.end()) return absl::OkStatus();
  const auto named = owner->second.by_name.find(entry.name);
  if (named == owner->second.by_name.end() || named->second == entry.id) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat("the name \"", entry.name, "\" is taken"));
}

void EntryTable::Put(const SessionEntry& entry) {
  Remove(entry.id);
  const SessionEntry& kept = by_id_[entry.id] = entry;
  Owner& owner = owners_[entry.principal];
  owner.by_id[kept.id] = &kept;
  if (!kept.name.empty()) owner.by_name[kept.name] = kept.id;
}

bool EntryTable::Remove(std::string_view id) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return false;
  const auto owner = owners_.find(found->second.principal);
  owner->second.by_name.erase(found->second.name);
  owner->second.by_id.erase(found->second.id);
  if (owner->second.by_id.empty()) owners_.erase(owner);
  by_id_.erase(found);
  return true;
}

const SessionEntry* EntryTable::Find(std::string_view principal, std::string_view ref) const {
  if (const SessionEntry* entry = FindId(ref); entry != nullptr) return entry;
  const auto owner = owners_.find(principal);
  if (owner == owners_.end()) return nullptr;
  const auto named = owner->second.by_name.find(ref);
  return named == owner->second.by_name.end() ? nullptr : FindId(named->second);
}

const SessionEntry* EntryTable::FindId(std::string_view id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &found->second;
}

std::vector<SessionEntry> EntryTable::List(const std::string* principal, std::string_view after, int64_t limit) const {
  std::vector<SessionEntry> page;
  const auto has_room = [&] { return static_cast<int64_t>(page.size()) < limit; };
  if (principal == nullptr) {
    for (auto entry = by_id_.upper_bound(after); entry != by_id_.end() && has_room(); ++entry) {
      page.push_back(entry->second);
    }
  } else if (const auto owner = owners_.find(*principal); owner != owners_.end()) {
    const auto& ids = owner->second.by_id;
    for (auto entry = ids.upper_bound(after); entry != ids.end() && has_room(); ++entry) page.push_back(*entry->second);
  }
  return page;
}

int64_t EntryTable::Count(std::string_view principal) const {
  const auto owner = owners_.find(principal);
  return owner == owners_.end() ? 0 : static_cast<int64_t>(owner->second.by_id.size());
}

absl::Status MemoryArchive::PutEntry(const SessionEntry& entry) {
  std::lock_guard<std::mutex> lock(mu_);
  if (absl::Status status = entries_.Check(entry); !status.ok()) return status;
  entries_.Put(entry);
  records_[entry.id];
  return absl::OkStatus();
}

absl::StatusOr<SessionEntry> MemoryArchive::FindEntry(std::string_view principal, std::string_view ref) {
  std::lock_guard<std::mutex> lock(mu_);
  const SessionEntry* const entry = entries_.Find(principal, ref);
  if (entry == nullptr) return NoSuch(ref);
  return *entry;
}

absl::StatusOr<std::vector<SessionEntry>> MemoryArchive::ListEntries(const std::string* principal_filter,
                                                                     std::string_view after, int64_t limit) {
  std::lock_guard<std::mutex> lock(mu_);
  return entries_.List(principal_filter, after, limit);
}

absl::StatusOr<int64_t> MemoryArchive::CountEntries(std::string_view principal) {
  std::lock_guard<std::mutex> lock(mu_);
  return entries_.Count(principal);
}

absl::Status MemoryArchive::Remove(std::string_view id, int64_t) {
  std::lock_guard<std::mutex> lock(mu_);
  entries_.Remove(id);
  if (const auto found = records_.find(id); found != records_.end()) records_.erase(found);
  return absl::OkStatus();
}

absl::Status MemoryArchive::Append(std::string_view id, int64_t number, int64_t, std::string_view record, bool) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = records_.find(id);
  if (found == records_.end()) return NoSuch(id);
  Records& kept = found->second;
  if (number != kept.first + static_cast<int64_t>(kept.records.size())) {
    return absl::AbortedError("another record was appended first");
  }
  kept.records.emplace_back(record);
  return absl::OkStatus();
}

absl::StatusOr<SessionArchive::Records> MemoryArchive::Read(std::string_view id) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = records_.find(id);
  if (found == records_.end()) return NoSuch(id);
  return found->second;
}

absl::Status MemoryArchive::Compact(std::string_view id, int64_t number, int64_t, std::string_view record) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = records_.find(id);
  if (found == records_.end()) return NoSuch(id);
  Records& kept = found->second;
  if (number != kept.first + static_cast<int64_t>(kept.records.size()) - 1) {
    return absl::AbortedError("another record was appended first");
  }
  kept = {.first = number, .records = {std::string(record)}};
  return absl::OkStatus();
}

absl::StatusOr<SessionLease> MemoryArchive::Acquire(std::string_view, const std::string& owner, absl::Duration) {
  return SessionLease{.owner = owner, .fence = 0, .expires = absl::InfiniteFuture()};
}

absl::StatusOr<SessionLease> MemoryArchive::GetLease(std::string_view) { return SessionLease{}; }

absl::StatusOr<SessionLease> MemoryArchive::Break(std::string_view) { return SessionLease{}; }

}  // namespace statehouse
