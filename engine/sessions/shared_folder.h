// A folder that several servers share, by the few operations that a network file system keeps atomic: link() of a whole
// file to a name that must be new, rename(). No locks. Every file carries a checksum.
//
// Paths are relative to the folder. Errors: NOT_FOUND, ALREADY_EXISTS, RESOURCE_EXHAUSTED (full), DATA_LOSS (checksum),
// UNAVAILABLE (the file system fails). Times are those of the file server, so that clocks of servers do not matter.
// Thread-safety: any thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/random_id.h"

namespace statehouse {

class SharedFolder {
 public:
  // Makes it if it is missing.
  static absl::StatusOr<std::unique_ptr<SharedFolder>> Open(const std::string& path);

  // Puts a file under a name that is free, synced. `may` is asked in the last moment before, with the time there, and
  // can still prevent it.
  absl::Status PutNew(const std::string& path, std::string_view contents,
                      const std::function<absl::Status(absl::Time now)>& may);
  // Whole, in place of what was there.
  absl::Status Replace(const std::string& path, std::string_view contents);
  // A folder with one file, whole, under a name that is free.
  absl::Status PutNewFolder(const std::string& path, const std::string& file, std::string_view contents);
  absl::StatusOr<std::string> Read(const std::string& path);
  absl::StatusOr<absl::Time> ModifiedAt(const std::string& path);
  // Sets the time that ModifiedAt() says to now.
  absl::Status Touch(const std::string& path);
  absl::StatusOr<absl::Time> Now();
  bool Exists(const std::string& path) const;
  // Names, sorted; none if the folder is missing.
  absl::StatusOr<std::vector<std::string>> List(const std::string& path);
  absl::Status MakeFolder(const std::string& path);
  // A file or a folder, at once as seen by others. OK if it is missing.
  absl::Status Remove(const std::string& path);

  const std::string& root() const { return root_; }

 private:
  explicit SharedFolder(std::string root) : root_(std::move(root)) {}
  std::string Full(const std::string& path) const { return root_ + "/" + path; }
  std::string NewTemporary();
  void Sweep();
  // Writes a synced file and returns the time there.
  absl::StatusOr<absl::Time> WriteFile(const std::string& full, std::string_view contents);

  const std::string root_;
  const std::string nonce_ = RandomHex(16);
  std::atomic<int64_t> num_temporaries_{0};
};

}  // namespace statehouse
