// What archives of one server have in common: entries in memory, by id and by name, and leases that are granted at
// once, since nobody else could have them. Thread-safety: as SessionArchive.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sessions/session_archive.h"

namespace statehouse {

// Entries by id and by name: what an archive of one server keeps in memory of them. Thread-safety: one thread.
class EntryTable {
 public:
  // ALREADY_EXISTS: another entry of the principal has the name.
  absl::Status Check(const SessionEntry& entry) const;
  void Put(const SessionEntry& entry);  // REQUIRES: Check(entry) is OK
  bool Remove(std::string_view id);     // was it there?
  // As SessionArchive::FindEntry(); null: none.
  const SessionEntry* Find(std::string_view principal, std::string_view ref) const;
  const SessionEntry* FindId(std::string_view id) const;
  std::vector<SessionEntry> List(const std::string* principal, std::string_view after, int64_t limit) const;
  int64_t Count(std::string_view principal) const;
  const std::map<std::string, SessionEntry, std::less<>>& by_id() const { return by_id_; }

 private:
  struct Owner {
    std::map<std::string, std::string, std::less<>> by_name;  // to the id
    std::map<std::string, const SessionEntry*, std::less<>> by_id;
  };

  std::map<std::string, SessionEntry, std::less<>> by_id_;
  std::map<std::string, Owner, std::less<>> owners_;
};

class OneServerArchive : public SessionArchive {
 public:
  absl::StatusOr<SessionEntry> FindEntry(std::string_view principal, std::string_view ref) final;
  absl::StatusOr<std::vector<SessionEntry>> ListEntries(const std::string* principal_filter, std::string_view after,
                                                        int64_t limit) final;
  absl::StatusOr<int64_t> CountEntries(std::string_view principal) final;
  absl::StatusOr<SessionLease> Acquire(std::string_view id, const std::string& owner, absl::Duration ttl) final;
  absl::StatusOr<SessionLease> Renew(std::string_view id, const SessionLease& lease, absl::Duration ttl) final;
  absl::Status Release(std::string_view, const SessionLease&) final { return absl::OkStatus(); }
  absl::StatusOr<SessionLease> GetLease(std::string_view) final { return SessionLease{}; }
  absl::StatusOr<SessionLease> Break(std::string_view) final { return SessionLease{}; }
  bool is_shared() const final { return false; }

 protected:
  std::mutex mu_;
  EntryTable entries_;  // guarded by mu_
};

}  // namespace statehouse
