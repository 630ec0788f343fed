// Where immutable values lie under keys: a local folder, a folder that several servers share, Redis. What is put under
// a key never changes; it is there whole or not at all.
//
// Errors: NOT_FOUND (no such key), RESOURCE_EXHAUSTED (full; nothing changed), DATA_LOSS (what came back is not what
// was put), UNAVAILABLE (the store does not answer in time: try later). Thread-safety: every method may be called from
// any thread, and may block on a disk or a network; never call one from the engine thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/state/byte_source.h"
#include "engine/state/file_layer.h"  // ByteSink

namespace statehouse {

struct BlobInfo {
  std::string key;
  int64_t bytes = 0;
  absl::Time modified;
};

class BlobStore {
 public:
  // Longest key in bytes; keys are of [a-z0-9/_.-], without "..", and name no folder that a key ends with.
  static constexpr size_t kMaxKeyBytes = 200;

  virtual ~BlobStore() = default;
  // For messages and metrics: "disk", "store".
  virtual const std::string& name() const = 0;
  // Calls `write` once with a sink that takes the value front to back. Replaces a value of the same key whole. An error
  // of `write` leaves the key as it was. OK: the value survives a crash.
  virtual absl::Status Put(const std::string& key, const std::function<absl::Status(const ByteSink&)>& write) = 0;
  virtual absl::StatusOr<std::vector<std::byte>> Get(const std::string& key) = 0;
  // To read in pieces; by default, all of it in memory.
  virtual absl::StatusOr<std::unique_ptr<ByteSource>> Open(const std::string& key) {
    auto bytes = Get(key);
    if (!bytes.ok()) return bytes.status();
    return SourceOf(*std::move(bytes));
  }
  virtual absl::StatusOr<BlobInfo> Stat(const std::string& key) = 0;
  // OK if it is missing.
  virtual absl::Status Remove(const std::string& key) = 0;
  // Moves a damaged value aside, where Get() does not find it and an operator does.
  virtual absl::Status Quarantine(const std::string& key) = 0;
  // Those that begin with `prefix` and come after `after`, in order; at most `limit`.
  virtual absl::StatusOr<std::vector<BlobInfo>> List(const std::string& prefix, const std::string& after,
                                                     int64_t limit) = 0;
};

}  // namespace statehouse
