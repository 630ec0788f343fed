// Files as durable code needs them: what is promised to survive a crash is only what was synced. An interface, so that
// tests can drop everything else. Thread-safety: a FileLayer may be used from any thread; one AppendFile by one at a
// time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/state/byte_source.h"

namespace statehouse {

// Takes the bytes of a file in order.
using ByteSink = std::function<absl::Status(std::span<const std::byte>)>;

// A file that grows at its end.
class AppendFile {
 public:
  virtual ~AppendFile() = default;
  virtual int64_t size() const = 0;
  // All of it, or an error and any part of it. RESOURCE_EXHAUSTED: the disk is full.
  virtual absl::Status Append(std::span<const std::byte> bytes) = 0;
  virtual absl::Status Truncate(int64_t size) = 0;
  // What was appended survives a crash from here on. After an error nothing is known about the file.
  virtual absl::Status Sync() = 0;
};

// A file that is locked until this goes.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

struct FileInfo {
  int64_t bytes = 0;
  absl::Time modified;
  bool is_folder = false;
};

class FileLayer {
 public:
  virtual ~FileLayer() = default;

  // Creates the file if it is missing; the file itself (not its contents) then survives a crash.
  virtual absl::StatusOr<std::unique_ptr<AppendFile>> OpenAppend(const std::string& path) = 0;
  // Puts a whole file in place, or leaves what was there: a temporary file, synced, renamed, its folder synced.
  virtual absl::Status WriteWhole(const std::string& path,
                                  const std::function<absl::Status(const ByteSink&)>& write) = 0;
  // NOT_FOUND if it is missing.
  virtual absl::StatusOr<std::vector<std::byte>> Read(const std::string& path) = 0;
  // To read in pieces; by default, all of it in memory. Errors of Read().
  virtual absl::StatusOr<std::unique_ptr<ByteSource>> OpenRead(const std::string& path);
  // NOT_FOUND if it is missing.
  virtual absl::StatusOr<FileInfo> Stat(const std::string& path) = 0;
  // Names in a folder, sorted; none if the folder is missing. Temporary files are left out.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& folder) = 0;
  // With its parents; survives a crash.
  virtual absl::Status MakeFolder(const std::string& folder) = 0;
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  // A file, or a folder with all files in it. OK if it is missing.
  virtual absl::Status Remove(const std::string& path) = 0;

  // Makes the file if it is missing, and locks it against other processes. FAILED_PRECONDITION: somebody has it.
  virtual absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path) = 0;

  static FileLayer* Posix();
};

}  // namespace statehouse
