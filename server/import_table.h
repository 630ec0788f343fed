// Transfers of sessions into this server that are under way, or broke off and may go on. They live in memory, bounded
// in number and bytes; one that nobody goes on with for an hour is forgotten. Thread-safety: any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace statehouse {

class ImportTable {
 public:
  struct Limits {
    int64_t max_transfers_per_principal = 4;
    int64_t max_bytes = int64_t{4} << 30;                // of all transfers
    int64_t max_bytes_per_principal = int64_t{3} << 30;  // of one principal's, so that others find room beside it
    absl::Duration keep = absl::Hours(1);
  };

  // The right to add to a transfer. Without Take() what has arrived stays in the table. Thread-safety: one thread.
  class Opened {
   public:
    ~Opened();
    Opened(const Opened&) = delete;
    Opened& operator=(const Opened&) = delete;

    // INVALID_ARGUMENT: `offset` is not where it ends. RESOURCE_EXHAUSTED: too large for the room that is left.
    absl::Status Append(int64_t offset, const std::string& data);
    // It is whole: its bytes, and the end of it. Once; nothing may be appended then.
    std::string Take();

   private:
    friend class ImportTable;
    using Key = std::pair<std::string, std::string>;
    Opened(ImportTable* table, Key key) : table_(table), key_(std::move(key)) {}
    ImportTable* table_;  // null until it is open, and once it was taken
    const Key key_;       // principal and id
  };

  ImportTable() : ImportTable(Limits()) {}
  explicit ImportTable(const Limits& limits) : limits_(limits) {}

  // Bytes that have arrived; 0 if there is no such transfer.
  int64_t Offset(const std::string& principal, const std::string& id);
  // Begins it, or goes on with it. The table must outlive what it returns. ABORTED: another call is at it.
  // RESOURCE_EXHAUSTED: too many.
  absl::StatusOr<std::unique_ptr<Opened>> Open(const std::string& principal, const std::string& id);
  // Gives back the memory of transfers that nobody goes on with: now and then.
  void ForgetOld();

 private:
  using Key = Opened::Key;
  struct Transfer {
    std::string bytes;
    bool is_open = false;
    absl::Time last_used;
  };
  void ForgetOldLocked(absl::Time now);
  int64_t BytesOfLocked(const std::string& principal) const;

  const Limits limits_;
  std::mutex mu_;
  std::map<Key, Transfer> transfers_;  // guarded by mu_, as below
  int64_t bytes_ = 0;
};

}  // namespace statehouse
