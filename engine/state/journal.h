// A file of records that grows at its end, and of which a crash can only cost the end that was not synced.
//
// Format: for each record u64 XXH3-64 of what follows, u32 size of the payload, payload; little-endian. Reading stops
// at the first record that is not whole and right, and cuts the file there. Thread-safety: one thread at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/state/file_layer.h"

namespace statehouse {

class Journal {
 public:
  static constexpr int64_t kMaxRecordBytes = int64_t{1} << 30;

  // Opens or makes it. `*records`: all that were written, in order.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(FileLayer* files, const std::string& path,
                                                       std::vector<std::string>* records);

  // All or nothing: after RESOURCE_EXHAUSTED (disk full) the journal is as before. With `sync` an OK record survives a
  // crash. After any other error the journal refuses everything: its file must be opened again.
  absl::Status Append(std::string_view record, bool sync);
  absl::Status Sync();

 private:
  Journal(std::string path, std::unique_ptr<AppendFile> file) : path_(std::move(path)), file_(std::move(file)) {}
  absl::Status Break(const absl::Status& status);

  const std::string path_;
  const std::unique_ptr<AppendFile> file_;
  absl::Status broken_;
};

}  // namespace statehouse
