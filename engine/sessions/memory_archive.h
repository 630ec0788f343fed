// A SessionArchive that lives as long as the process: for sessions of durability `memory`, and where there is no other.
// One server's: leases are granted at once. Thread-safety: every method may be called from any thread; none blocks.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
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
  int64_t size() const { return static_cast<int64_t>(by_id_.size()); }
  const std::map<std::string, SessionEntry, std::less<>>& by_id() const { return by_id_; }

 private:
  struct Owner {
    std::map<std::string, std::string, std::less<>> by_name;  // to the id
    std::map<std::string, const SessionEntry*, std::less<>> by_id;
  };

  std::map<std::string, SessionEntry, std::less<>> by_id_;
  std::map<std::string, Owner, std::less<>> owners_;
};

class MemoryArchive : public SessionArchive {
 public:
  absl::Status PutEntry(const SessionEntry& entry) override;
  absl::StatusOr<SessionEntry> FindEntry(std::string_view principal, std::string_view ref) override;
  absl::StatusOr<std::vector<SessionEntry>> ListEntries(const std::string* principal_filter, std::string_view after,
                                                        int64_t limit) override;
  absl::StatusOr<int64_t> CountEntries(std::string_view principal) override;
  absl::Status Remove(std::string_view id, int64_t fence) override;
  absl::Status Append(std::string_view id, int64_t number, int64_t fence, std::string_view record, bool sync) override;
  absl::StatusOr<Records> Read(std::string_view id) override;
  absl::Status Compact(std::string_view id, int64_t number, int64_t fence, std::string_view record) override;
  absl::Status Sync() override { return absl::OkStatus(); }
  absl::StatusOr<SessionLease> Acquire(std::string_view id, const std::string& owner, absl::Duration ttl) override;
  absl::Status Renew(std::string_view, const SessionLease&, absl::Duration) override { return absl::OkStatus(); }
  absl::Status Release(std::string_view, const SessionLease&) override { return absl::OkStatus(); }
  absl::StatusOr<SessionLease> GetLease(std::string_view id) override;
  absl::StatusOr<SessionLease> Break(std::string_view id) override;
  bool is_shared() const override { return false; }

 private:
  std::mutex mu_;
  EntryTable entries_;                                   // guarded by mu_, as is the one below
  std::map<std::string, Records, std::less<>> records_;  // by id
};

}  // namespace statehouse
