// What everything that keeps files needs of POSIX: descriptors that close, errors by kind, whole writes, synced
// folders. Thread-safety: free functions; a Descriptor by one thread at a time.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace statehouse {

// Owns a descriptor.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  int number() const { return number_; }
  bool is_open() const { return number_ >= 0; }

 private:
  int number_;
};

// "<path>: <what>: <error>". NOT_FOUND, ALREADY_EXISTS, RESOURCE_EXHAUSTED (no space, too many links), or `otherwise`.
absl::Status FileError(const std::string& path, const char* what, int error, absl::StatusCode otherwise);
// All of it, at the descriptor's place.
absl::Status WriteAll(const Descriptor& file, const std::string& path, std::span<const std::byte> bytes,
                      absl::StatusCode otherwise);
// What was put into the folder that holds `path` survives a crash.
absl::Status SyncFolderOf(const std::string& path, absl::StatusCode otherwise);

}  // namespace statehouse
