// One tier below host memory: a BlobStore with what is known to be in it, the threads that move snapshots into it, and
// the back-off while it is slow, dead or full. Thread-safety: any thread; those that say so block.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/state/back_off.h"
#include "engine/state/blob_store.h"
#include "engine/state/snapshot_vault.h"
#include "engine/state/timed_calls.h"

namespace statehouse {

class VaultTier {
 public:
  using Writer = std::function<absl::Status(const ByteSink&)>;

  // What the movers need of the vault; called from their threads, with no lock of the tier held.
  class Source {
   public:
    virtual ~Source() = default;
    // Writes the snapshot's file. NOT_FOUND: there is nothing left to move.
    virtual absl::StatusOr<Writer> OpenForMove(const std::string& key, Tier to) = 0;
    // It is in the tier now, or the tier gave it up.
    virtual void MoveEnded(const std::string& key, Tier to) = 0;
  };

  struct Options {
    Tier tier = Tier::kDisk;
    int64_t max_bytes = 0;  // 0: no bound
    int64_t max_queued_bytes = 0;
    int num_movers = 1;
    bool survey = false;                                   // find out at start what is there
    absl::Duration timeout = absl::InfiniteDuration();     // of a read; infinite: reads run in the caller's thread
    absl::Duration first_pause = absl::Milliseconds(100);  // of the back-off
    absl::Duration longest_pause = absl::Seconds(30);
  };

  // `blobs`, `source` and `below` outlive it. What `below` (may be null) holds too may be dropped to make room here.
  VaultTier(const Options& options, BlobStore* blobs, Source* source, const VaultTier* below);
  ~VaultTier();
  // Waits for moves under way; those that wait are dropped. Reading goes on.
  void Stop();

  // Where a snapshot lies in the store.
  static std::string BlobKeyOf(const std::string& key);

  // False if too many bytes wait already. Snapshots of the prefix cache may fill only a part of that room, and are not
  // taken while the tier is full or does not answer.
  bool Enqueue(const std::string& key, int64_t bytes);
  // Puts it first in line, however many wait, and blocks until it is here. NOT_FOUND (nothing to move),
  // RESOURCE_EXHAUSTED, DATA_LOSS (what it is read from), UNAVAILABLE (deadline, or a back-off that outlasts it).
  absl::Status MoveNow(const std::string& key, int64_t bytes, absl::Time deadline);
  // As far as is known.
  bool Has(const std::string& key) const;
  // Is everything in it known?
  bool is_surveyed() const;

  // These block on the store. UNAVAILABLE at once during a back-off.
  // The snapshot's file. Within the tier's time-out: all of it is read when this returns; without, it is read as it is
  // used, and what fails then counts like any other call.
  absl::StatusOr<std::unique_ptr<ByteSource>> Open(const std::string& key);
  absl::StatusOr<BlobInfo> Stat(const std::string& key);
  // Also takes back a move. `*bytes`: what it was, also if it cannot go; -1 if it was not there, or the store did not
  // tell.
  absl::Status Remove(const std::string& key, int64_t* bytes);
  // The same by the movers, as soon as the store answers; does not block. Dropped with the tier.
  void RemoveLater(const std::string& key);
  absl::Status Quarantine(const std::string& key);
  // Keys as the vault has them; what else lies there is left out.
  absl::StatusOr<std::vector<BlobInfo>> List(const std::string& after, int64_t limit);

  void CountHit();
  SnapshotVault::TierTotals totals() const;

 private:
  struct Known {
    int64_t bytes = 0;
    uint64_t used = 0;  // by tick_
  };
  struct Move {
    std::string key;
    int64_t bytes = 0;
    int tries = 0;
    absl::Time not_before = absl::InfinitePast();  // while what it is read from does not answer
    absl::Status why;                              // of the last try
  };
  struct Waiter {
    const std::string* key = nullptr;
    bool is_done = false;
    absl::Status outcome;
  };

  class NotedSource;
  static constexpr char kFolder[] = "snapshots/";     // of the store
  static std::string KeyOf(const std::string& blob);  // empty: something else lies there

  // Runs a call on the store with the time-out, unless there is a back-off, and notes how it went. Without `is_all` its
  // success does not tell that the tier works.
  absl::Status Call(std::function<absl::Status()> call, bool is_all = true);
  void Note(const absl::Status& status);  // mutex_ held
  void Survey();
  void RunMovers();
  bool HasRoomInLine(const std::string& key, int64_t bytes) const;  // mutex_ held
  void TakeBackMove(const std::string& key);                        // mutex_ held
  void RemoveOne(std::unique_lock<std::mutex>* lock);
  bool PutInLine(const std::string& key, int64_t bytes, bool urgent);  // mutex_ held
  // Writes a file and returns its size.
  absl::StatusOr<int64_t> WriteOne(const Move& move, const Writer& writer);
  // Of max_bytes, for a file of this key.
  absl::Status MakeRoom(const std::string& key, int64_t bytes);
  // In a store that is full, by snapshots of the prefix cache. False: there are none.
  absl::StatusOr<bool> DropPrefixes(int64_t bytes);
  // Removes keys in this order until `bytes` are free. Returns what was freed.
  absl::StatusOr<int64_t> RemoveUntil(const std::vector<std::string>& keys, int64_t bytes);
  struct Ending {
    bool ended = false;  // it will not be tried again
    bool undo = false;   // it is there, and was dropped meanwhile
  };
  // `is_here`: it was this tier that failed, if it failed. For all from here on, mutex_ is held.
  Ending Finish(Move move, const absl::StatusOr<int64_t>& written, bool is_here);
  void Learn(const std::string& key, int64_t bytes);
  int64_t Forget(const std::string& key);
  absl::Time NextTry() const;
  // Names the tier. Takes no lock.
  absl::Status Described(const absl::Status& status) const;

  const Options options_;
  BlobStore* const blobs_;
  Source* const source_;
  const VaultTier* const below_;

  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable progress_;
  std::deque<Move> queue_;
  int64_t queued_bytes_ = 0;
  std::map<std::string, bool> under_way_;  // false once its snapshot was dropped
  std::vector<Waiter*> waiters_;
  std::unordered_map<std::string, Known> known_;
  int64_t known_bytes_ = 0;
  uint64_t tick_ = 0;
  BackOff health_;                    // the tier does not answer
  BackOff room_;                      // it is full: only writes wait
  BackOff prefix_room_;               // it is full for snapshots of the prefix cache
  std::deque<std::string> removals_;  // keys
  bool surveyed_ = false;
  bool stopping_ = false;
  int64_t hits_ = 0;
  int64_t errors_ = 0;
  int64_t skipped_ = 0;

  std::unique_ptr<TimedCalls> calls_;  // null without a time-out
  std::vector<std::thread> movers_;
};

}  // namespace statehouse
