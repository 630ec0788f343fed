// The sessions of a server: archive, snapshot vault and store, made from its flags for the model that it serves.
// Thread-safety: one thread makes, drains and destroys it; see SessionStore for the rest.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/sessions/session_store.h"
#include "engine/state/blob_store.h"
#include "engine/state/fingerprint.h"
#include "engine/state/slot_pool.h"
#include "engine/state/snapshot_vault.h"

namespace statehouse {

struct SessionSettings {
  std::string dir;                               // --session-dir: journals and snapshots of this server; "": none
  std::string store;                             // --session-store: what replicas share, a folder or redis://; "": none
  int64_t max_checkpoints = 8;                   // --session-checkpoints
  Durability durability = Durability::kDefault;  // --session-durability
  absl::Duration async_lag = absl::Seconds(1);   // --session-async-lag
  absl::Duration lease = absl::Seconds(30);      // --session-lease
  int64_t max_replay_tokens = 65536;             // --max-replay-tokens
  int64_t max_sessions_per_principal = 0;        // 0: no limit, as below
  int64_t max_bytes_per_principal = 0;           // --max-session-bytes-per-principal
  int64_t host_bytes = int64_t{1} << 30;         // --snapshot-host-memory
  int64_t disk_bytes = 0;                        // --snapshot-disk-space; 0: no bound
  std::string replica_id;                        // --replica-id; "": host name, process id, random digits
  // As SessionStoreOptions says.
  std::function<void(const std::string& what)> on_upkeep_failure = {};
};

// INVALID_ARGUMENT names the flag. Before anything is opened.
absl::Status CheckSessionSettings(const SessionSettings& settings);
// The same for a model with slots of this shape: room in which no snapshot, or no turn, would find any.
absl::Status CheckSessionRoom(const SessionSettings& settings, const SlotShape& shape);

class HostedSessions {
 public:
  // `here`, `shape` and `chunk` are the model's. Takes the folder for this process: FAILED_PRECONDITION if another
  // server has it.
  // `memory`, for snapshots that are read back, may be null.
  static absl::StatusOr<std::unique_ptr<HostedSessions>> Open(const SessionSettings& settings, const Fingerprint& here,
                                                              const SlotShape& shape, int64_t chunk,
                                                              std::shared_ptr<SnapshotMemory> memory = nullptr);
  ~HostedSessions();

  SessionStore& store() const { return *store_; }
  SnapshotVault& vault() const { return *vault_; }
  // Is there a disk for snapshots?
  bool has_disk() const { return disk_ != nullptr; }
  // The most that snapshots take in host memory, beside those that wait to be moved.
  int64_t host_bytes() const { return host_bytes_; }
  // What was found damaged at start, and what was done about it.
  const std::vector<std::string>& warnings() const { return warnings_; }
  // For people: "in /var/lib/statehouse, sync", "in memory".
  std::string Describe() const;

 private:
  HostedSessions() = default;
  absl::Status OpenTiers(const SessionSettings& settings, const Fingerprint& here, const SlotShape& shape,
                         std::shared_ptr<SnapshotMemory> memory);

  // In this order: the store goes first, then what it stands on.
  std::unique_ptr<SessionArchive> archive_;  // null: sessions live as long as the process
  std::unique_ptr<BlobStore> disk_;
  std::unique_ptr<BlobStore> shared_blobs_;
  std::unique_ptr<SnapshotVault> vault_;
  std::unique_ptr<SessionStore> store_;
  std::vector<std::string> warnings_;
  std::string place_;
  int64_t host_bytes_ = 0;
  Durability durability_ = Durability::kMemory;
};

}  // namespace statehouse
