// A FileLayer in memory that crashes: what was not synced is lost, in part or whole. Faults: a disk that is full, a
// sync that fails. Thread-safety: one thread.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/state/file_layer.h"

namespace statehouse::testing {

class CrashFiles final : public FileLayer {
 public:
  explicit CrashFiles(uint32_t seed = 1) : random_(seed) {}

  int64_t disk_bytes = int64_t{1} << 40;  // appends beyond fail, after a part of them
  int64_t fail_sync_in = -1;              // that many syncs succeed first; negative: all

  // Power loss: of each file, what was synced, and any part of the rest. Files that are open are lost to their owners.
  void Crash() {
    for (auto& [path, file] : files_) {
      std::vector<std::byte>& bytes = file->bytes;
      if (bytes.size() > file->synced) bytes.resize(file->synced + random_() % (bytes.size() - file->synced + 1));
      // The end that was never synced may also hold anything.
      if (bytes.size() > file->synced && random_() % 2 == 0) bytes.back() ^= std::byte{0x55};
      file->synced = bytes.size();
    }
    ++generation_;
  }
  std::vector<std::byte>* bytes_of(const std::string& path) { return &files_.at(path)->bytes; }

  absl::StatusOr<std::unique_ptr<AppendFile>> OpenAppend(const std::string& path) override {
    std::shared_ptr<File>& file = files_[path];
    if (file == nullptr) file = std::make_shared<File>();
    return std::make_unique<OpenFile>(this, file, generation_);
  }
  absl::Status WriteWhole(const std::string& path, const std::function<absl::Status(const ByteSink&)>& write) override {
    auto file = std::make_shared<File>();
    const absl::Status status = write([&](std::span<const std::byte> bytes) { return Grow(file.get(), bytes); });
    if (!status.ok()) return status;
    if (absl::Status synced = Sync(); !synced.ok()) return synced;
    file->synced = file->bytes.size();
    files_[path] = file;
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<std::byte>> Read(const std::string& path) override {
    const auto found = files_.find(path);
    if (found == files_.end()) return absl::NotFoundError(path);
    return found->second->bytes;
  }
  absl::StatusOr<FileInfo> Stat(const std::string& path) override {
    if (const auto file = files_.find(path); file != files_.end()) {
      return FileInfo{.bytes = static_cast<int64_t>(file->second->bytes.size()), .modified = {}, .is_folder = false};
    }
    const auto inside = files_.lower_bound(path + "/");
    if (inside == files_.end() || !inside->first.starts_with(path + "/")) return absl::NotFoundError(path);
    return FileInfo{.bytes = 0, .modified = {}, .is_folder = true};
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& folder) override {
    std::set<std::string> names;
    for (auto file = files_.lower_bound(folder + "/"); file != files_.end() && file->first.starts_with(folder + "/");
         ++file) {
      const std::string rest = file->first.substr(folder.size() + 1);
      names.insert(rest.substr(0, rest.find('/')));
    }
    return std::vector<std::string>(names.begin(), names.end());
  }
  absl::Status MakeFolder(const std::string&) override { return absl::OkStatus(); }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    const auto found = files_.find(from);
    if (found == files_.end()) return absl::NotFoundError(from);
    files_[to] = std::move(found->second);
    files_.erase(from);
    return absl::OkStatus();
  }
  absl::Status Remove(const std::string& path) override {
    std::erase_if(files_, [&](const auto& file) { return file.first == path || file.first.starts_with(path + "/"); });
    return absl::OkStatus();
  }

 private:
  struct File {
    std::vector<std::byte> bytes;
    size_t synced = 0;
  };
  class OpenFile final : public AppendFile {
   public:
    OpenFile(CrashFiles* files, std::shared_ptr<File> file, int64_t generation)
        : files_(files), file_(std::move(file)), generation_(generation) {}
    int64_t size() const override { return static_cast<int64_t>(file_->bytes.size()); }
    absl::Status Append(std::span<const std::byte> bytes) override {
      return generation_ == files_->generation_ ? files_->Grow(file_.get(), bytes) : Lost();
    }
    absl::Status Truncate(int64_t size) override {
      if (generation_ != files_->generation_) return Lost();
      file_->bytes.resize(static_cast<size_t>(size));
      file_->synced = std::min(file_->synced, file_->bytes.size());
      return absl::OkStatus();
    }
    absl::Status Sync() override {
      if (generation_ != files_->generation_) return Lost();
      if (absl::Status status = files_->Sync(); !status.ok()) return status;
      file_->synced = file_->bytes.size();
      return absl::OkStatus();
    }

   private:
    static absl::Status Lost() { return absl::InternalError("the machine crashed since this file was opened"); }
    CrashFiles* const files_;
    const std::shared_ptr<File> file_;
    const int64_t generation_;
  };

  absl::Status Grow(File* file, std::span<const std::byte> bytes) {
    int64_t used = 0;
    for (const auto& [path, other] : files_) used += static_cast<int64_t>(other->bytes.size());
    const int64_t room = std::max<int64_t>(0, disk_bytes - used);
    const bool fits = room >= static_cast<int64_t>(bytes.size());
    const auto part = fits ? bytes : bytes.first(static_cast<size_t>(room));
    file->bytes.insert(file->bytes.end(), part.begin(), part.end());
    return fits ? absl::OkStatus() : absl::ResourceExhaustedError("the disk is full");
  }
  absl::Status Sync() {
    if (fail_sync_in == 0) return absl::InternalError("injected: sync failed");
    if (fail_sync_in > 0) --fail_sync_in;
    return absl::OkStatus();
  }

  std::mt19937 random_;
  std::map<std::string, std::shared_ptr<File>> files_;
  int64_t generation_ = 0;
};

}  // namespace statehouse::testing
