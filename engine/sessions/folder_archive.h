// A SessionArchive on a folder that several servers share (NFS, or one machine's disk).
//
// Entries are in a FolderCatalog; records and leases of a session in its FolderLog. Two servers never both succeed:
// every step that decides is a link() to a name that must be new. Leases run on the file server's clock. Everything
// that is acknowledged is synced. Thread-safety: as SessionArchive.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/sessions/folder_catalog.h"
#include "engine/sessions/folder_log.h"
#include "engine/sessions/session_archive.h"
#include "engine/sessions/shared_folder.h"

namespace statehouse {

class FolderArchive final : public SessionArchive {
 public:
  static absl::StatusOr<std::unique_ptr<FolderArchive>> Open(const std::string& folder);

  absl::Status PutEntry(const SessionEntry& entry) override { return catalog_.Put(entry); }
  absl::StatusOr<SessionEntry> FindEntry(std::string_view principal, std::string_view ref) override {
    return catalog_.Find(principal, ref);
  }
  absl::StatusOr<std::vector<SessionEntry>> ListEntries(const std::string* principal_filter, std::string_view after,
                                                        int64_t limit) override {
    return catalog_.List(principal_filter, after, limit);
  }
  absl::StatusOr<int64_t> CountEntries(std::string_view principal) override { return catalog_.Count(principal); }
  absl::Status Remove(std::string_view id, int64_t fence) override;

  absl::Status Append(std::string_view id, int64_t number, int64_t fence, std::string_view record, bool sync) override;
  absl::StatusOr<Records> Read(std::string_view id) override;
  absl::Status Compact(std::string_view id, int64_t number, int64_t fence, std::string_view record) override;
  absl::Status Sync() override { return absl::OkStatus(); }

  absl::StatusOr<SessionLease> Acquire(std::string_view id, const std::string& owner, absl::Duration ttl) override;
  absl::StatusOr<SessionLease> Renew(std::string_view id, const SessionLease& lease, absl::Duration ttl) override;
  absl::Status Release(std::string_view id, const SessionLease& lease) override;
  absl::StatusOr<SessionLease> GetLease(std::string_view id) override;
  absl::StatusOr<SessionLease> Break(std::string_view id) override;
  bool is_shared() const override { return true; }

 private:
  // May the entry be put, given what the log says and the time there?
  using Decide = std::function<absl::Status(const LogState& state, absl::Time now, absl::Time lease_end)>;

  explicit FolderArchive(std::unique_ptr<SharedFolder> folder)
      : folder_(std::move(folder)), catalog_(folder_.get()), log_(folder_.get()) {}
  // Catches up, makes an entry, asks `decide`, puts it; again if another server was faster.
  absl::StatusOr<LogState> Advance(const std::string& id, const std::function<LogEntry(const LogState&)>& make,
                                   const Decide& decide);
  absl::StatusOr<LogState> Current(const std::string& id);
  void Remember(const std::string& id, const LogState* state);

  const std::unique_ptr<SharedFolder> folder_;
  FolderCatalog catalog_;
  FolderLog log_;
  std::mutex mutex_;
  std::unordered_map<std::string, LogState> states_;  // what was read of logs; may be behind
};

}  // namespace statehouse
