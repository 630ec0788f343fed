#include "clients/cli/export_target.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace statehouse::cli {
namespace {

namespace fs = std::filesystem;

// Of the system, and never a code that means something else of a call.
absl::Status FileError(const std::string& file, const char* what) {
  const int error = errno;
  absl::Status status = absl::ErrnoToStatus(error, absl::StrCat(file, ": cannot ", what));
  if (!absl::IsUnavailable(status) && !absl::IsFailedPrecondition(status)) return status;
  return absl::UnknownError(status.message());
}

// At `offset`, or where the descriptor stands if that is negative.
absl::Status WriteAll(int fd, std::string_view data, int64_t offset, const std::string& file) {
  while (!data.empty()) {
    const ssize_t n = offset < 0 ? write(fd, data.data(), data.size()) : pwrite(fd, data.data(), data.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(file, "write");
    data.remove_prefix(static_cast<size_t>(n));
    if (offset >= 0) offset += n;
  }
  return absl::OkStatus();
}

class FileTarget : public ExportTarget {
 public:
  explicit FileTarget(const std::string& file) : file_(file), part_(file + ".part"), id_file_(part_ + ".id") {
    // What an earlier transfer left, if it is known of which.
    std::ifstream(id_file_) >> id_;
    std::error_code error;
    const auto size = fs::file_size(part_, error);
    if (error || size == 0) id_.clear();
    offset_ = id_.empty() ? 0 : static_cast<int64_t>(size);
  }
  ~FileTarget() override {
    if (fd_ >= 0) close(fd_);
  }
  FileTarget(const FileTarget&) = delete;
  FileTarget& operator=(const FileTarget&) = delete;

  absl::Status Append(const std::string& export_id, std::string_view data) override {
    if (fd_ < 0) {
      fd_ = open(part_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
      if (fd_ < 0 || ftruncate(fd_, offset_) != 0) return FileError(part_, "write");
    }
    if (id_ != export_id) {
      id_ = export_id;
      std::ofstream id_out(id_file_, std::ios::trunc);
      if (!(id_out << id_ << "\n").flush()) return FileError(id_file_, "write");
    }
    if (absl::Status status = WriteAll(fd_, data, offset_, part_); !status.ok()) return status;
    offset_ += static_cast<int64_t>(data.size());
    return absl::OkStatus();
  }
  absl::Status Restart() override {
    id_.clear();
    offset_ = 0;
    return fd_ < 0 || ftruncate(fd_, 0) == 0 ? absl::OkStatus() : FileError(part_, "write");
  }
  absl::Status Finish() override {
    if (fsync(fd_) != 0) return FileError(part_, "sync");
    if (rename(part_.c_str(), file_.c_str()) != 0) return FileError(file_, "write");
    unlink(id_file_.c_str());
    return absl::OkStatus();
  }

 private:
  const std::string file_, part_, id_file_;
  int fd_ = -1;
};

class StreamTarget : public ExportTarget {
 public:
  StreamTarget(int fd, std::string name) : fd_(fd), name_(std::move(name)) { is_stdout_ = fd == STDOUT_FILENO; }
  ~StreamTarget() override {
    if (!is_stdout_ && fd_ >= 0) close(fd_);
  }
  StreamTarget(const StreamTarget&) = delete;
  StreamTarget& operator=(const StreamTarget&) = delete;

  absl::Status Append(const std::string& export_id, std::string_view data) override {
    id_ = export_id;
    if (absl::Status status = WriteAll(fd_, data, -1, name_); !status.ok()) return status;
    offset_ += static_cast<int64_t>(data.size());
    return absl::OkStatus();
  }
  absl::Status Restart() override {
    id_.clear();
    if (offset_ == 0) return absl::OkStatus();
    return absl::AbortedError(absl::StrCat("the session has moved on, and ", name_, " holds ", offset_,
                                           " bytes of it already, which cannot be taken back; export it again"));
  }
  absl::Status Finish() override {
    if (is_stdout_) return absl::OkStatus();
    return close(std::exchange(fd_, -1)) == 0 ? absl::OkStatus() : FileError(name_, "write");
  }

 private:
  int fd_;
  const std::string name_;
};

absl::StatusOr<std::unique_ptr<ExportTarget>> OpenStandardOutput() {
  if (isatty(STDOUT_FILENO) == 1) {
    return absl::InvalidArgumentError("FILE: \"-\" is a terminal here, which cannot show a snapshot; redirect it");
  }
  return std::make_unique<StreamTarget>(STDOUT_FILENO, "standard output");
}

// Where the links end, also if nothing is there: what is put in the file's place must not be put in a link's.
absl::StatusOr<std::string> FollowLinks(const std::string& name) {
  constexpr int kMostLinks = 40;  // Linux's own limit
  fs::path path = name;
  std::error_code error;
  for (int i = 0; fs::is_symlink(fs::symlink_status(path, error)); ++i) {
    const fs::path target = fs::read_symlink(path, error);
    if (error || i == kMostLinks) {
      errno = error ? error.value() : ELOOP;
      return FileError(name, "write");
    }
    path = path.parent_path() / target;
  }
  return path.string();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExportTarget>> ExportTarget::Open(const std::string& name, bool overwrite) {
  if (name == "-") return OpenStandardOutput();
  if (name.empty()) {
    return absl::InvalidArgumentError("FILE: \"\" is not allowed; expected a path, or - for standard output");
  }
  struct stat about;
  const bool exists = stat(name.c_str(), &about) == 0;
  if (!exists && errno != ENOENT) return FileError(name, "write");
  if (exists && (S_ISFIFO(about.st_mode) || S_ISCHR(about.st_mode))) {
    const int fd = open(name.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) return FileError(name, "write");
    return std::make_unique<StreamTarget>(fd, name);
  }
  if (exists && !S_ISREG(about.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat("FILE: ", name, " is a ",
                                                   S_ISDIR(about.st_mode)   ? "folder"
                                                   : S_ISBLK(about.st_mode) ? "block device"
                                                                            : "socket",
                                                   "; expected a file, a pipe, or - for standard output"));
  }
  if (exists && !overwrite) return absl::AlreadyExistsError(absl::StrCat(name, " exists; --overwrite replaces it"));
  absl::StatusOr<std::string> file = FollowLinks(name);
  if (!file.ok()) return file.status();
  return std::make_unique<FileTarget>(*file);
}

}  // namespace statehouse::cli
