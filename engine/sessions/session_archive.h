// The durable side of sessions: which there are, each one's numbered records, and who may append to it now.
//
// Record n can be appended only by who knows that n - 1 is the last, and, where servers share the archive, only under a
// lease whose fencing token is the newest that was given out: a server that slept through the end of its lease finds
// its token too old. Records are opaque here (engine/sessions/session_record.h words them). Implementations: a folder
// of this server alone, a folder that servers share, Redis.
//
// Errors: NOT_FOUND (no such session), ALREADY_EXISTS (name), ABORTED (another server appended first, holds the lease,
// or has had it since; with a retry hint where waiting helps), RESOURCE_EXHAUSTED (full: nothing changed, nothing is
// lost), DATA_LOSS, UNAVAILABLE (no answer: whether it happened is not known; read again). Thread-safety: every method
// may be called from any thread, and may block; calls for one session come from one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace statehouse {

// What can be listed and found without reading a session's records.
struct SessionEntry {
  std::string id;         // IsSessionId()
  std::string principal;  // who owns it
  std::string name;       // unique per principal; empty: none
  std::string meta;       // opaque here: labels, ttl, pin, durability, times
};

struct SessionLease {
  std::string owner;    // a server's --replica-id; empty: nobody holds it
  int64_t fence = 0;    // grows with every lease of that session
  absl::Time expires;   // on the archive's clock
  absl::Duration left;  // until then, when the archive said so
};

// 32 hexadecimal digits, a … f in lower case.
bool IsSessionId(std::string_view text);
std::string NewSessionId();
// NOT_FOUND, as archives word it.
absl::Status NoSuchSession(std::string_view ref);

class SessionArchive {
 public:
  virtual ~SessionArchive() = default;

  // --- which there are ---
  // Enters a new session, or replaces meta and name of one; survives a crash. ALREADY_EXISTS: the name is taken.
  virtual absl::Status PutEntry(const SessionEntry& entry) = 0;
  // By id, or by name among the principal's. An id of another principal's session is found too: the caller decides.
  virtual absl::StatusOr<SessionEntry> FindEntry(std::string_view principal, std::string_view ref) = 0;
  // By id, those of the principal that come after `after`; at most `limit`. An empty principal_filter pointer (null)
  // means all principals.
  virtual absl::StatusOr<std::vector<SessionEntry>> ListEntries(const std::string* principal_filter,
                                                                std::string_view after, int64_t limit) = 0;
  // At once. A server that died while it removed one may leave it in the count until the principal's are listed.
  virtual absl::StatusOr<int64_t> CountEntries(std::string_view principal) = 0;
  // Entry, records and lease. OK if it is missing.
  virtual absl::Status Remove(std::string_view id, int64_t fence) = 0;

  // --- records ---
  // `number` counts from 1. With `sync` an OK record survives a crash; without, it does after the next synced call or
  // Sync().
  virtual absl::Status Append(std::string_view id, int64_t number, int64_t fence, std::string_view record,
                              bool sync) = 0;
  struct Records {
    int64_t first = 1;  // number of the first
    std::vector<std::string> records;
  };
  // All that are kept, from the last compaction on.
  virtual absl::StatusOr<Records> Read(std::string_view id) = 0;
  // Replaces all records up to the last one, which is `number`, by one that says the same.
  virtual absl::Status Compact(std::string_view id, int64_t number, int64_t fence, std::string_view record) = 0;
  virtual absl::Status Sync() = 0;

  // --- leases; an archive of one server grants all of them at once ---
  // ABORTED with a retry hint: `owner` is not the holder, and the lease has not run out.
  virtual absl::StatusOr<SessionLease> Acquire(std::string_view id, const std::string& owner, absl::Duration ttl) = 0;
  // The same lease, from now on for `ttl`. ABORTED: it is not the newest, or nobody holds one.
  virtual absl::StatusOr<SessionLease> Renew(std::string_view id, const SessionLease& lease, absl::Duration ttl) = 0;
  virtual absl::Status Release(std::string_view id, const SessionLease& lease) = 0;
  virtual absl::StatusOr<SessionLease> GetLease(std::string_view id) = 0;
  // Whoever holds it can no longer append. Returns what it was.
  virtual absl::StatusOr<SessionLease> Break(std::string_view id) = 0;
  // Do several servers use it?
  virtual bool is_shared() const = 0;
};

// All entries, or those of a principal, by id, until `visit` says false or fails. Read page by page: what is entered or
// removed meanwhile may be seen or not.
absl::Status ForEachEntry(SessionArchive* archive, const std::string* principal_filter,
                          const std::function<absl::StatusOr<bool>(const SessionEntry&)>& visit);

}  // namespace statehouse
