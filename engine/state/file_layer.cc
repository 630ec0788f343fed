#include "engine/state/file_layer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/state/posix_file.h"

namespace statehouse {
namespace {

namespace fs = std::filesystem;

constexpr char kTemporary[] = ".tmp";

absl::Status Failed(const std::string& path, const char* what, int error) {
  return FileError(path, what, error, absl::StatusCode::kInternal);
}

absl::Status WriteTo(const Descriptor& file, const std::string& path, std::span<const std::byte> bytes) {
  return WriteAll(file, path, bytes, absl::StatusCode::kInternal);
}

absl::Status SyncParent(const std::string& path) { return SyncFolderOf(path, absl::StatusCode::kInternal); }

class PosixAppendFile final : public AppendFile {
 public:
  PosixAppendFile(std::string path, Descriptor descriptor, int64_t size)
      : path_(std::move(path)), descriptor_(std::move(descriptor)), size_(size) {}

  int64_t size() const override { return size_; }
  absl::Status Append(std::span<const std::byte> bytes) override {
    absl::Status status = WriteTo(descriptor_, path_, bytes);
    struct stat info;
    if (fstat(descriptor_.number(), &info) == 0) size_ = info.st_size;
    return status;
  }
  absl::Status Truncate(int64_t size) override {
    if (ftruncate(descriptor_.number(), size) != 0) return Failed(path_, "cannot be cut", errno);
    size_ = size;
    return absl::OkStatus();
  }
  absl::Status Sync() override {
    if (fdatasync(descriptor_.number()) != 0) return Failed(path_, "cannot be synced", errno);
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  const Descriptor descriptor_;
  int64_t size_;
};

// A descriptor and the size that the file had.
class PosixSource final : public ByteSource {
 public:
  PosixSource(std::string path, Descriptor descriptor, int64_t size)
      : path_(std::move(path)), descriptor_(std::move(descriptor)), size_(size) {}

  int64_t size() const override { return size_; }
  absl::StatusOr<std::span<const std::byte>> View(int64_t offset, std::span<std::byte> scratch) const override {
    const auto done = ReadTo(offset, scratch);
    if (!done.ok()) return done.status();
    if (*done < scratch.size()) return absl::DataLossError(absl::StrCat(path_, ": it was cut off while it was read"));
    return std::span<const std::byte>(scratch);
  }
  // Returns how many bytes there are, at most as many as fit.
  absl::StatusOr<size_t> ReadTo(int64_t offset, std::span<std::byte> bytes) const {
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t count = pread(descriptor_.number(), bytes.data() + done, bytes.size() - done,
                                  static_cast<off_t>(offset + static_cast<int64_t>(done)));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return Failed(path_, "cannot be read", errno);
      if (count == 0) break;
      done += static_cast<size_t>(count);
    }
    return done;
  }

 private:
  const std::string path_;
  const Descriptor descriptor_;
  const int64_t size_;
};

class PosixFileLock final : public FileLock {
 public:
  explicit PosixFileLock(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}

 private:
  const Descriptor descriptor_;
};

class PosixFileLayer final : public FileLayer {
 public:
  absl::StatusOr<std::unique_ptr<AppendFile>> OpenAppend(const std::string& path) override {
    const bool is_new = access(path.c_str(), F_OK) != 0;
    Descriptor descriptor(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    if (!descriptor.is_open()) return Failed(path, "cannot be opened", errno);
    struct stat info;
    if (fstat(descriptor.number(), &info) != 0) return Failed(path, "cannot be measured", errno);
    if (is_new) {
      if (absl::Status status = SyncParent(path); !status.ok()) return status;
    }
    return std::make_unique<PosixAppendFile>(path, std::move(descriptor), info.st_size);
  }

  absl::Status WriteWhole(const std::string& path, const std::function<absl::Status(const ByteSink&)>& write) override {
    const std::string temporary = path + kTemporary;
    absl::Status status = WriteTemporary(temporary, write);
    if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
      status = Failed(path, "cannot be put in place", errno);
    }
    if (!status.ok()) {
      unlink(temporary.c_str());
      return status;
    }
    return SyncParent(path);
  }

  absl::StatusOr<std::vector<std::byte>> Read(const std::string& path) override {
    const auto source = OpenSource(path);
    if (!source.ok()) return source.status();
    std::vector<std::byte> bytes(static_cast<size_t>((*source)->size()));
    const auto done = (*source)->ReadTo(0, bytes);
    if (!done.ok()) return done.status();
    bytes.resize(*done);
    return bytes;
  }

  absl::StatusOr<std::unique_ptr<ByteSource>> OpenRead(const std::string& path) override { return OpenSource(path); }

  absl::StatusOr<FileInfo> Stat(const std::string& path) override {
    struct stat info;
    if (stat(path.c_str(), &info) != 0) return Failed(path, "cannot be measured", errno);
    return FileInfo{
        .bytes = info.st_size, .modified = absl::TimeFromTimespec(info.st_mtim), .is_folder = S_ISDIR(info.st_mode)};
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& folder) override {
    std::error_code error;
    std::vector<std::string> names;
    fs::directory_iterator entries(folder, error);
    if (error == std::errc::no_such_file_or_directory) return names;
    for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
      if (entries->path().extension() != kTemporary) names.push_back(entries->path().filename());
    }
    if (error) return Failed(folder, "cannot be listed", error.value());
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::Status MakeFolder(const std::string& folder) override {
    const fs::path path(folder);
    if (path.empty()) return absl::OkStatus();
    std::error_code error;  // of a folder that cannot be looked at: it cannot be made either, and mkdir() says why
    if (fs::is_directory(path, error)) return absl::OkStatus();
    if (path.has_parent_path() && path.parent_path() != path) {
      if (absl::Status status = MakeFolder(path.parent_path()); !status.ok()) return status;
    }
    if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return Failed(folder, "cannot be made", errno);
    return SyncParent(folder);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (rename(from.c_str(), to.c_str()) != 0) return Failed(from, "cannot be renamed", errno);
    return SyncParent(to);
  }

  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path) override {
    Descriptor descriptor(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!descriptor.is_open()) return Failed(path, "cannot be opened", errno);
    if (flock(descriptor.number(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return Failed(path, "cannot be locked", errno);
      char holder[16] = {};
      const bool is_known = pread(descriptor.number(), holder, sizeof(holder) - 1, 0) > 0;
      return absl::FailedPreconditionError(absl::StrCat(path, ": ",
                                                        is_known ? absl::StrCat("process ", holder) : "another process",
                                                        " uses this folder; stop it, or ", "choose another folder"));
    }
    // For the message above; the lock does not depend on it.
    const std::string holder = absl::StrCat(getpid());
    if (ftruncate(descriptor.number(), 0) != 0 || pwrite(descriptor.number(), holder.data(), holder.size(), 0) < 0) {
      return Failed(path, "cannot be written", errno);
    }
    return std::make_unique<PosixFileLock>(std::move(descriptor));
  }

  absl::Status Remove(const std::string& path) override {
    std::error_code error;
    fs::remove_all(path, error);
    if (error) return Failed(path, "cannot be removed", error.value());
    return SyncParent(path);
  }

 private:
  static absl::StatusOr<std::unique_ptr<PosixSource>> OpenSource(const std::string& path) {
    Descriptor descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!descriptor.is_open()) return Failed(path, "cannot be opened", errno);
    struct stat info;
    if (fstat(descriptor.number(), &info) != 0) return Failed(path, "cannot be measured", errno);
    return std::make_unique<PosixSource>(path, std::move(descriptor), info.st_size);
  }
  static absl::Status WriteTemporary(const std::string& temporary,
                                     const std::function<absl::Status(const ByteSink&)>& write) {
    const Descriptor descriptor(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!descriptor.is_open()) return Failed(temporary, "cannot be made", errno);
    absl::Status status =
        write([&](std::span<const std::byte> bytes) { return WriteTo(descriptor, temporary, bytes); });
    if (status.ok() && fsync(descriptor.number()) != 0) status = Failed(temporary, "cannot be synced", errno);
    return status;
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> FileLayer::OpenRead(const std::string& path) {
  auto bytes = Read(path);
  if (!bytes.ok()) return bytes.status();
  return SourceOf(*std::move(bytes));
}

FileLayer* FileLayer::Posix() {
  static PosixFileLayer layer;
  return &layer;
}

}  // namespace statehouse
