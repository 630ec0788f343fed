// Transfers of sessions into this server that are under way, or broke off and may go on. They live in memory, bounded
// in number and bytes; one that nobody goes on with for an hour is forgotten. Thread-safety: any thread; one caller at
// a time may add to a transfer.
#pragma once

#include <cstdint>
#include <map>
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
    int64_t max_bytes = int64_t{4} << 30;  // of all transfers
    absl::Duration keep = absl::Hours(1);
  };
  ImportTable() : ImportTable(Limits()) {}
  explicit ImportTable(const Limits& limits) : limits_(limits) {}

  // Bytes that have arrived; 0 if there is no such transfer.
  int64_t Offset(const std::string& principal, const std::string& id);
  // Begins it, or goes on with it. ABORTED: another call is at it. RESOURCE_EXHAUSTED: too many.
  absl::Status Open(const std::string& principal, const std::string& id);
  // REQUIRES: opened, for the three below. INVALID_ARGUMENT: `offset` is not where it ends. RESOURCE_EXHAUSTED: too
  // large for the room that is left.
  absl::Status Append(const std::string& principal, const std::string& id, int64_t offset, const std::string& data);
  // It broke off: what has arrived stays.
  void Close(const std::string& principal, const std::string& id);
  // It is whole: its bytes, and the end of it.
  std::string Take(const std::string& principal, const std::string& id);

 private:
  struct Transfer {
    std::string bytes;
    bool is_open = false;
    absl::Time last_used;
  };
  using Key = std::pair<std::string, std::string>;
  void ForgetOldLocked(absl::Time now);

  const Limits limits_;
  std::mutex mu_;
  std::map<Key, Transfer> transfers_;  // guarded by mu_, as below
  int64_t bytes_ = 0;
};

}  // namespace statehouse
