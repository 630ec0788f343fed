// A SessionArchive on Redis or Valkey. Whatever decides between servers is one Lua script, which the server runs alone:
// it looks at lease, fencing token and last record, and appends or says why not. Leases run on its clock.
//
// Keys, all beginning with "statehouse:": "entry:<id>" (hash), "ids" and "ids:<principal>" (sorted sets),
// "names:<principal>" (hash of name to id), "records:<id>" (list), "head:<id>" (hash: first, last), "lease:<id>" (the
// holder, with a time to live), "fence:<id>" (counter). What an OK survives is up to the server's persistence:
// docs/replicas.md. Thread-safety: as SessionArchive.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/sessions/session_archive.h"
#include "engine/state/redis_client.h"

namespace statehouse {

class RedisArchive final : public SessionArchive {
 public:
  explicit RedisArchive(std::shared_ptr<RedisClient> client) : client_(std::move(client)) {}

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
  absl::StatusOr<SessionLease> Renew(std::string_view id, const SessionLease& lease, absl::Duration ttl) override;
  absl::Status Release(std::string_view id, const SessionLease& lease) override;
  absl::StatusOr<SessionLease> GetLease(std::string_view id) override;
  absl::StatusOr<SessionLease> Break(std::string_view id) override;
  bool is_shared() const override { return true; }

 private:
  const std::shared_ptr<RedisClient> client_;
};

}  // namespace statehouse
