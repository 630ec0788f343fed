// Where snapshots live when no slot holds them: host memory, then local disk, then a store that servers share.
//
// Keep() puts a snapshot in host memory at once and hands it to the mover threads, which write it to the tiers below in
// the background; what is below already may leave host memory under its budget, least recently used first. A tier that
// is slow or does not answer is left alone for a while (with back-off) and named in answers; nothing waits for it but
// who asks for it. Thread-safety: every method may be called from any thread; those that say so block. Never call one
// from the engine thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/state/blob_store.h"
#include "engine/state/fingerprint.h"
#include "engine/state/snapshot.h"

namespace statehouse {

enum class Tier : uint8_t { kNone, kDevice, kHost, kDisk, kStore };
inline constexpr int kNumTiers = 5;
const char* TierName(Tier tier);  // "none", "device", "host", "disk", "store"

struct SnapshotVaultOptions {
  int64_t host_bytes = 0;  // --snapshot-host-memory; snapshots that wait to be moved are kept beyond it
  int64_t disk_bytes = 0;  // --snapshot-disk-space; 0: no bound
  // Snapshots that wait to be moved, per tier; 0: as host_bytes. One beyond it is in host memory only, and as long as
  // that has room: where all of it is held by those that wait, not at all.
  int64_t max_queued_bytes = 0;
  std::shared_ptr<SnapshotMemory> memory = nullptr;      // for those that are read back; null: ordinary memory
  int num_movers = 1;                                    // per tier
  absl::Duration fetch_timeout = absl::Seconds(10);      // of the shared store
  absl::Duration first_pause = absl::Milliseconds(100);  // of a tier that failed; doubles up to the longest
  absl::Duration longest_pause = absl::Seconds(30);
};

class SnapshotVault {
 public:
  struct Fetched {
    std::shared_ptr<const Snapshot> snapshot;
    Tier tier = Tier::kNone;  // where it was
    Exactness exactness = Exactness::kExact;
    std::string numeric_difference;
  };
  struct TierTotals {
    int64_t snapshots = 0;
    int64_t bytes = 0;
    int64_t hits = 0;
    int64_t errors = 0;
    int64_t waiting = 0;  // moves into it that wait or run
    int64_t skipped = 0;  // snapshots that were not moved into it because too many bytes waited
    bool available = true;
    std::string why_not;  // while it is left alone, or takes no more
  };

  // `disk` and `store` may be null and must outlive the vault. `here` is the loaded model's.
  static absl::StatusOr<std::unique_ptr<SnapshotVault>> Create(const SnapshotVaultOptions& options,
                                                               const Fingerprint& here, const SlotShape& shape,
                                                               BlobStore* disk, BlobStore* store);
  virtual ~SnapshotVault() = default;  // waits for moves under way; those that wait are dropped

  // Returns at once. `key` names it in every tier: NewKey() or NewPrefixKey(). With `durable` it goes to the tiers
  // below; without it leaves with host memory. Durable under a NewPrefixKey(), it goes to disk only, and is in host
  // memory only until it is there; RESOURCE_EXHAUSTED or FAILED_PRECONDITION (there is no disk): it is not kept.
  virtual absl::Status Keep(const std::string& key, std::shared_ptr<const Snapshot> snapshot, bool durable) = 0;
  // Blocks until it survives this process (on disk or in the store; `shared`: in the store), or the deadline.
  // NOT_FOUND: in no tier. RESOURCE_EXHAUSTED: full. DATA_LOSS: the only copy is damaged. UNAVAILABLE: not in time.
  // FAILED_PRECONDITION: there is no such tier.
  virtual absl::Status Flush(const std::string& key, bool shared, absl::Time deadline) = 0;
  // Is there a tier that survives this process (`shared`: a store)?
  virtual bool CanFlush(bool shared) const = 0;
  // Blocks on disk or network. NOT_FOUND: in no tier. DATA_LOSS: damaged, now in quarantine. UNAVAILABLE: its tier is
  // left alone or too slow. FAILED_PRECONDITION: another identity by field, or another numeric mode that is not
  // allowed.
  virtual absl::StatusOr<Fetched> Fetch(const std::string& key, bool allow_other_numeric) = 0;
  // The nearest tier that is known to hold it; does not block.
  virtual Tier Where(const std::string& key) const = 0;
  // From every tier; adds to `removed`, by tier, what it was. Blocks.
  struct Removed {
    std::array<int64_t, kNumTiers> snapshots{};
    std::array<int64_t, kNumTiers> bytes{};
  };
  virtual absl::Status Drop(const std::string& key, Removed* removed) = 0;
  // The same, in the background where that takes a disk or a network: does not block. What fails is left behind. As it
  // stands here for vaults in memory alone: at once.
  virtual void DropLater(const std::string& key);
  // Checks what a tier holds under the key, without loading it anywhere.
  virtual absl::Status Verify(const std::string& key, Tier tier) = 0;
  // Keys in disk and store, for garbage collection.
  virtual absl::StatusOr<std::vector<BlobInfo>> List(Tier tier, const std::string& after, int64_t limit) = 0;
  virtual std::array<TierTotals, kNumTiers> totals() const = 0;

  static bool IsKey(const std::string& text);
  // Random: 32 hexadecimal digits.
  static std::string NewKey();
  // "p" and 31 digits: of a cache that ends with its process, and what is left of an earlier one is removed from disk.
  // Such a snapshot makes room on disk for others, be it that --snapshot-disk-space or the disk itself is full.
  static std::string NewPrefixKey();
  static bool IsPrefixKey(const std::string& key) { return !key.empty() && key[0] == 'p'; }
};

}  // namespace statehouse
