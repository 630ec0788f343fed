// A session that is in memory: what the store knows of it between calls. Private to the store.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/sessions/session_archive.h"
#include "engine/sessions/session_record.h"

namespace statehouse {

struct OpenSession {
  explicit OpenSession(std::string session_id) : id(std::move(session_id)) {}

  const std::string id;
  int64_t last_use = 0;  // guarded by the store's mutex; counts uses

  // Held while the session is read or written, also across calls of the archive. A turn does not hold it: `busy` does.
  std::mutex mu;
  // --- guarded by mu ---
  SessionArchive* archive = nullptr;
  SessionEntry entry;
  SessionMeta meta;  // of entry.meta
  SessionContent content;
  int64_t num_records = 0;   // number of the last one
  int64_t record_bytes = 0;  // of all that are kept
  bool is_read = false;      // entry, meta and content are what the archive says, or said when nobody else could append
  bool is_deleted = false;
  bool is_busy = false;    // a turn is under way
  SessionLease lease;      // held if the owner is not empty
  absl::Time lease_asked;  // by this machine's clock: lease.left counts from then at the latest
  bool has_unsynced = false;
  std::atomic<bool> has_stale_entry{false};  // the summary in the archive trails; also read under the store's mutex
  std::set<std::string> durable_keys;        // of checkpoints, known to survive a crash
};

// One message for what is not there and what is not theirs.
inline absl::Status NoneOfYours(std::string_view ref) {
  return absl::NotFoundError(absl::StrCat("session: you have none with the id or name \"", std::string(ref), "\""));
}

}  // namespace statehouse
