#include "engine/sessions/one_server_archive.h"

#include "absl/strings/str_cat.h"

namespace statehouse {

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

absl::StatusOr<SessionEntry> OneServerArchive::FindEntry(std::string_view principal, std::string_view ref) {
  std::lock_guard<std::mutex> lock(mu_);
  const SessionEntry* const entry = entries_.Find(principal, ref);
  if (entry == nullptr) return NoSuchSession(ref);
  return *entry;
}

absl::StatusOr<std::vector<SessionEntry>> OneServerArchive::ListEntries(const std::string* principal_filter,
                                                                        std::string_view after, int64_t limit) {
  std::lock_guard<std::mutex> lock(mu_);
  return entries_.List(principal_filter, after, limit);
}

absl::StatusOr<int64_t> OneServerArchive::CountEntries(std::string_view principal) {
  std::lock_guard<std::mutex> lock(mu_);
  return entries_.Count(principal);
}

absl::StatusOr<SessionLease> OneServerArchive::Acquire(std::string_view, const std::string& owner, absl::Duration) {
  return SessionLease{.owner = owner, .fence = 0, .expires = absl::InfiniteFuture(), .left = absl::InfiniteDuration()};
}

absl::StatusOr<SessionLease> OneServerArchive::Renew(std::string_view, const SessionLease& lease, absl::Duration) {
  return lease;
}

}  // namespace statehouse
