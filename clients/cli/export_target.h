// Where an exported session goes. Thread-safety: one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace statehouse::cli {

// A file appears under its name whole or not at all; what has arrived waits beside it, and another transfer goes on
// from there. Standard output, a pipe or a character device takes the bytes as they come.
class ExportTarget {
 public:
  // `name`: a path, whose symbolic links are followed, or "-" for standard output. INVALID_ARGUMENT: empty, or nothing
  // that takes bytes, such as a folder, a block device or a terminal's standard output; ALREADY_EXISTS: a file, without
  // `overwrite`. Makes no file: that waits for the first bytes.
  static absl::StatusOr<std::unique_ptr<ExportTarget>> Open(const std::string& name, bool overwrite);
  virtual ~ExportTarget() = default;

  // The next bytes, at offset(). Errors name the file; none of them is UNAVAILABLE or FAILED_PRECONDITION.
  virtual absl::Status Append(const std::string& export_id, std::string_view data) = 0;
  // Drops what has arrived. ABORTED where it cannot be taken back.
  virtual absl::Status Restart() = 0;
  virtual absl::Status Finish() = 0;

  int64_t offset() const { return offset_; }     // bytes that have arrived
  const std::string& id() const { return id_; }  // of the export that they belong to; empty: none
  bool is_stdout() const { return is_stdout_; }

 protected:
  ExportTarget() = default;

  std::string id_;
  int64_t offset_ = 0;
  bool is_stdout_ = false;
};

}  // namespace statehouse::cli
