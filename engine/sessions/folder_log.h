// The log of one session in a SharedFolder: records and leases in one order, so that a lease that was taken since is
// always seen by who appends.
//
// Entries are files <session>/g<generation>/<slot>, put with link() under the next number: only one server can. A
// compaction *seals* the generation with an entry that says all, and goes on in a new one; the old folder goes away
// whole, so that a server that knows only old slots cannot put a file back where one was removed. Thread-safety: any
// thread; a LogState by one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/sessions/shared_folder.h"

namespace statehouse {

struct LogEntry {
  enum class Kind : uint8_t { kRecord = 1, kLease, kRelease, kBreak, kBase, kSeal };
  Kind kind = Kind::kRecord;
  int64_t number = 0;       // kRecord, kBase, kSeal: of the last record
  int64_t fence = 0;        // from here on; kRecord and kSeal change no lease
  std::string owner = {};   // kLease, kBase; empty: nobody
  absl::Duration ttl = {};  // kLease, kBase
  std::string record = {};  // kRecord, kBase, kSeal
};

// What the entries up to last_slot come to.
struct LogState {
  int64_t generation = 1;
  int64_t last_slot = 0;
  int64_t first = 1;  // number of the first record kept
  int64_t last = 0;   // number of the last
  int64_t fence = 0;
  std::string owner;  // of the newest lease, which may have run out
  absl::Duration ttl;
  int64_t lease_slot = 0;  // its file's time plus ttl is when it runs out
  bool sealed = false;
  std::string seal;  // the record that says all, if sealed
};

class FolderLog {
 public:
  explicit FolderLog(SharedFolder* folder) : folder_(folder) {}

  // Makes an empty log.
  absl::Status Create(const std::string& session);
  // From the start; `*records` (may be null): those kept. A sealed generation is followed by the next. NOT_FOUND,
  // DATA_LOSS, ABORTED (it changes faster than it can be read).
  absl::StatusOr<LogState> Load(const std::string& session, std::vector<std::string>* records);
  // Reads on from `*state`; starts anew if the generation has gone.
  absl::Status CatchUp(const std::string& session, LogState* state);
  // Puts the next entry and adds it to `*state`. ALREADY_EXISTS: another server put one first; NOT_FOUND: the
  // generation has gone (in both cases: catch up). UNAVAILABLE: not known.
  absl::Status Put(const std::string& session, const LogEntry& entry, LogState* state,
                   const std::function<absl::Status(absl::Time now)>& may);
  // The time on the file server at which the newest lease runs out; the past if there is none.
  absl::StatusOr<absl::Time> LeaseEnd(const std::string& session, const LogState& state);
  absl::Status TouchLease(const std::string& session, const LogState& state);

 private:
  absl::StatusOr<LogState> LoadOnce(const std::string& session, std::vector<std::string>* records);
  absl::Status ReadOn(const std::string& session, LogState* state, std::vector<std::string>* records);
  // Makes the generation after a sealed one, and removes those before it.
  absl::Status Promote(const std::string& session, const LogState& sealed);

  SharedFolder* const folder_;
};

}  // namespace statehouse
