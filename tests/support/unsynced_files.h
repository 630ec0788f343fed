// Files on disk, never synced: for tests that make very many. Thread-safety: as FileLayer.
#pragma once

#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/state/file_layer.h"

namespace statehouse::testing {

class UnsyncedFiles final : public FileLayer {
 public:
  absl::StatusOr<std::unique_ptr<AppendFile>> OpenAppend(const std::string& path) override {
    auto file = files_->OpenAppend(path);
    if (!file.ok()) return file.status();
    return std::make_unique<UnsyncedFile>(*std::move(file));
  }
  absl::Status WriteWhole(const std::string& path, const std::function<absl::Status(const ByteSink&)>& write) override {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    absl::Status status = write([&file](std::span<const std::byte> bytes) {
      file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
      return absl::OkStatus();
    });
    file.close();
    if (status.ok() && !file) status = absl::InternalError(path + ": cannot be written");
    return status;
  }
  absl::StatusOr<std::vector<std::byte>> Read(const std::string& path) override { return files_->Read(path); }
  absl::StatusOr<FileInfo> Stat(const std::string& path) override { return files_->Stat(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& folder) override { return files_->List(folder); }
  absl::Status MakeFolder(const std::string& folder) override { return files_->MakeFolder(folder); }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (std::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
    return absl::InternalError(from + ": cannot be renamed");
  }
  absl::Status Remove(const std::string& path) override { return files_->Remove(path); }
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path) override { return files_->Lock(path); }

 private:
  class UnsyncedFile final : public AppendFile {
   public:
    explicit UnsyncedFile(std::unique_ptr<AppendFile> file) : file_(std::move(file)) {}
    int64_t size() const override { return file_->size(); }
    absl::Status Append(std::span<const std::byte> bytes) override { return file_->Append(bytes); }
    absl::Status Truncate(int64_t size) override { return file_->Truncate(size); }
    absl::Status Sync() override { return absl::OkStatus(); }

   private:
    const std::unique_ptr<AppendFile> file_;
  };

  FileLayer* const files_ = FileLayer::Posix();
};

}  // namespace statehouse::testing
