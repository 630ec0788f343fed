// A BlobStore on a folder: of this server's disk, or one that several servers share.
//
// A value is one file at <folder>/<key>. It is written below <folder>/incoming and moved, so that a key holds all of a
// value or nothing. Damaged ones lie in <folder>/quarantine. Thread-safety: as BlobStore.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/random_id.h"
#include "engine/state/blob_store.h"
#include "engine/state/file_layer.h"

namespace statehouse {

class FolderBlobs final : public BlobStore {
 public:
  // Makes the folder if it is missing; removes what a crash left half written (a day old if `shared`: others may be at
  // it). One that is not shared is taken for this process: FAILED_PRECONDITION if another one has it. `files` must
  // outlive it.
  static absl::StatusOr<std::unique_ptr<FolderBlobs>> Open(FileLayer* files, const std::string& folder,
                                                           const std::string& name, bool shared);

  const std::string& name() const override { return name_; }
  absl::Status Put(const std::string& key, const std::function<absl::Status(const ByteSink&)>& write) override;
  absl::StatusOr<std::vector<std::byte>> Get(const std::string& key) override;
  absl::StatusOr<std::unique_ptr<ByteSource>> Open(const std::string& key) override;
  absl::StatusOr<BlobInfo> Stat(const std::string& key) override;
  absl::Status Remove(const std::string& key) override;
  absl::Status Quarantine(const std::string& key) override;
  absl::StatusOr<std::vector<BlobInfo>> List(const std::string& prefix, const std::string& after,
                                             int64_t limit) override;

 private:
  FolderBlobs(FileLayer* files, std::string folder, std::string name)
      : files_(files), folder_(std::move(folder)), name_(std::move(name)) {}
  std::string PathOf(const std::string& key) const { return folder_ + "/" + key; }
  absl::Status Sweep(bool shared);

  FileLayer* const files_;
  std::unique_ptr<FileLock> lock_;  // null if it is shared
  const std::string folder_;
  const std::string name_;
  const std::string incoming_ = RandomHex(16);  // of this object alone, also among servers
  std::atomic<int64_t> num_incoming_{0};
};

// INVALID_ARGUMENT unless BlobStore allows the key.
absl::Status CheckBlobKey(const std::string& key);

}  // namespace statehouse
