#include "engine/state/folder_blobs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

constexpr char kIncoming[] = "incoming";
constexpr char kQuarantine[] = "quarantine";
constexpr char kLock[] = "lock";
constexpr absl::Duration kAbandonedAfter = absl::Hours(24);

std::string FolderOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

// Walks a folder in the order of whole keys: "a.b" comes before "a/b".
class Walk {
 public:
  Walk(FileLayer* files, const std::string& folder, const std::string& prefix, const std::string& after, int64_t limit)
      : files_(files), folder_(folder), prefix_(prefix), after_(after), limit_(static_cast<size_t>(limit)) {}

  // `inside`: "" or a key's beginning that ends with '/'.
  absl::Status Enter(const std::string& inside) {
    auto names = files_->List(inside.empty() ? folder_ : absl::StrCat(folder_, "/", inside));
    if (!names.ok()) return names.status();
    std::vector<Item> items;
    for (const std::string& name : *names) {
      if (inside.empty() && (name == kIncoming || name == kQuarantine || name == kLock)) continue;
      const std::string path = absl::StrCat(folder_, "/", inside, name);
      auto info = files_->Stat(path);
      if (absl::IsNotFound(info.status())) continue;  // removed since it was listed
      if (!info.ok()) return info.status();
      items.push_back({absl::StrCat(inside, name, info->is_folder ? "/" : ""), *info});
    }
    std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.key < b.key; });
    for (const Item& item : items) {
      if (found_.size() >= limit_) break;
      if (absl::Status status = Visit(item); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  std::vector<BlobInfo> Take() { return std::move(found_); }

 private:
  struct Item {
    std::string key;
    FileInfo info;
  };

  absl::Status Visit(const Item& item) {
    const size_t common = std::min(item.key.size(), prefix_.size());
    if (item.key.compare(0, common, prefix_, 0, common) != 0) return absl::OkStatus();
    if (item.info.is_folder) {
      // All in it comes before `after`?
      const bool passed = item.key < after_ && !after_.starts_with(item.key);
      return passed ? absl::OkStatus() : Enter(item.key);
    }
    if (item.key.size() >= prefix_.size() && item.key > after_) {
      found_.push_back({item.key, item.info.bytes, item.info.modified});
    }
    return absl::OkStatus();
  }

  FileLayer* const files_;
  const std::string& folder_;
  const std::string& prefix_;
  const std::string& after_;
  const size_t limit_;
  std::vector<BlobInfo> found_;
};

}  // namespace

absl::Status CheckBlobKey(const std::string& key) {
  bool good = !key.empty() && key.size() <= BlobStore::kMaxKeyBytes && key.front() != '/' && key.back() != '/' &&
              key.find("..") == std::string::npos && key.find("//") == std::string::npos;
  for (const char c : key) {
    good = good && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '/' || c == '_' || c == '.' || c == '-');
  }
  good = good && !key.ends_with(".tmp") && !key.starts_with("incoming/") && !key.starts_with("quarantine/") &&
         key != kLock;
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("\"", key, "\" is no key of a blob: 1 to ", BlobStore::kMaxKeyBytes,
                                                 " bytes of [a-z0-9/_.-] are allowed, without \"..\""));
}

absl::StatusOr<std::unique_ptr<FolderBlobs>> FolderBlobs::Open(FileLayer* files, const std::string& folder,
                                                               const std::string& name, bool shared) {
  if (absl::Status status = files->MakeFolder(folder); !status.ok()) return status;
  std::unique_ptr<FolderBlobs> blobs(new FolderBlobs(files, folder, name));
  if (!shared) {
    auto lock = files->Lock(absl::StrCat(folder, "/", kLock));
    if (!lock.ok()) return lock.status();
    blobs->lock_ = *std::move(lock);
  }
  if (absl::Status status = blobs->Sweep(shared); !status.ok()) return status;
  return blobs;
}

absl::Status FolderBlobs::Sweep(bool shared) {
  const std::string incoming = absl::StrCat(folder_, "/", kIncoming);
  auto stores = files_->List(incoming);
  if (!stores.ok()) return stores.status();
  for (const std::string& store : *stores) {
    const std::string path = absl::StrCat(incoming, "/", store);
    const auto info = files_->Stat(path);
    if (!info.ok() || (shared && info->modified > absl::Now() - kAbandonedAfter)) continue;
    if (absl::Status status = files_->Remove(path); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status FolderBlobs::Put(const std::string& key, const std::function<absl::Status(const ByteSink&)>& write) {
  if (absl::Status status = CheckBlobKey(key); !status.ok()) return status;
  const std::string incoming = absl::StrCat(folder_, "/", kIncoming, "/", incoming_);
  const std::string arriving = absl::StrCat(incoming, "/", num_incoming_.fetch_add(1));
  absl::Status status = files_->MakeFolder(incoming);
  if (status.ok()) status = files_->WriteWhole(arriving, write);
  if (status.ok()) status = files_->MakeFolder(FolderOf(PathOf(key)));
  if (status.ok()) status = files_->Rename(arriving, PathOf(key));
  if (!status.ok()) files_->Remove(arriving).IgnoreError();  // the first error tells more
  return status;
}

absl::StatusOr<std::vector<std::byte>> FolderBlobs::Get(const std::string& key) {
  if (absl::Status status = CheckBlobKey(key); !status.ok()) return status;
  return files_->Read(PathOf(key));
}

absl::StatusOr<std::unique_ptr<ByteSource>> FolderBlobs::Open(const std::string& key) {
  if (absl::Status status = CheckBlobKey(key); !status.ok()) return status;
  return files_->OpenRead(PathOf(key));
}

absl::StatusOr<BlobInfo> FolderBlobs::Stat(const std::string& key) {
  if (absl::Status status = CheckBlobKey(key); !status.ok()) return status;
  const auto info = files_->Stat(PathOf(key));
  if (!info.ok()) return info.status();
  if (info->is_folder) return absl::NotFoundError(absl::StrCat(PathOf(key), " is a folder"));
  return BlobInfo{key, info->bytes, info->modified};
}

absl::Status FolderBlobs::Remove(const std::string& key) {
  const auto info = Stat(key);
  if (absl::IsNotFound(info.status())) return absl::OkStatus();
  return info.ok() ? files_->Remove(PathOf(key)) : info.status();
}

absl::Status FolderBlobs::Quarantine(const std::string& key) {
  if (absl::Status status = CheckBlobKey(key); !status.ok()) return status;
  std::string flat = key;
  std::replace(flat.begin(), flat.end(), '/', '_');
  const std::string aside = absl::StrCat(folder_, "/", kQuarantine);
  if (absl::Status status = files_->MakeFolder(aside); !status.ok()) return status;
  const absl::Status status = files_->Rename(PathOf(key), absl::StrCat(aside, "/", flat));
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

absl::StatusOr<std::vector<BlobInfo>> FolderBlobs::List(const std::string& prefix, const std::string& after,
                                                        int64_t limit) {
  Walk walk(files_, folder_, prefix, after, limit);
  if (absl::Status status = walk.Enter(""); !status.ok()) return status;
  return walk.Take();
}

}  // namespace statehouse
