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

// What stands in the file.
struct JournalContents {
  std::vector<std::string> records;  // that are whole and right, from the start
  int64_t whole_bytes = 0;           // that they take
  int64_t torn_bytes = 0;            // behind them
  // Whole records that stand in there. A crash may leave them, if nothing before them was synced; else it was damage.
  std::vector<std::string> beyond;
};

class Journal {
 public:
  static constexpr int64_t kMaxRecordBytes = int64_t{1} << 30;

  // Changes nothing. A file that is missing is empty.
  static absl::StatusOr<JournalContents> Read(FileLayer* files, const std::string& path);
  // Opens or makes it, and cuts off what stands behind the first `whole_bytes`.
  static absl::StatusOr<std::unique_ptr<Journal>> OpenAt(FileLayer* files, const std::string& path,
                                                         int64_t whole_bytes);
  // A record as it stands in the file.
  static std::string Frame(std::string_view record);

  // All or nothing: after RESOURCE_EXHAUSTED (disk full) the journal is as before. With `sync` an OK record survives a
  // crash. After any other error the journal refuses everything: its file must be opened again.
  absl::Status Append(std::string_view record, bool sync);
  absl::Status Sync();
  int64_t size() const { return file_->size(); }

 private:
  Journal(std::string path, std::unique_ptr<AppendFile> file) : path_(std::move(path)), file_(std::move(file)) {}
  absl::Status Break(const absl::Status& status);

  const std::string path_;
  const std::unique_ptr<AppendFile> file_;
  absl::Status broken_;
};

}  // namespace statehouse
