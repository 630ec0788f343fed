#include "engine/sessions/shared_folder.h"

#define XXH_INLINE_ALL
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/state/posix_file.h"

namespace statehouse {
namespace {

namespace fs = std::filesystem;

constexpr char kTemporary[] = "incoming";
constexpr absl::Duration kAbandonedAfter = absl::Hours(24);

absl::Status Failed(const std::string& path, const char* what, int error) {
  return FileError(path, what, error, absl::StatusCode::kUnavailable);
}

absl::Status SyncParent(const std::string& full) { return SyncFolderOf(full, absl::StatusCode::kUnavailable); }

// After something was put in place: from there on no error may say that it was not, not even one that says that the
// folder has gone since.
absl::Status SyncPut(const std::string& full) {
  const absl::Status status = SyncParent(full);
  return status.ok() ? status : absl::UnavailableError(status.message());
}

// Checksum, then contents.
std::string Framed(std::string_view contents) {
  const uint64_t checksum = XXH3_64bits(contents.data(), contents.size());
  std::string framed(sizeof(checksum), '\0');
  std::memcpy(framed.data(), &checksum, sizeof(checksum));
  framed.append(contents);
  return framed;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SharedFolder>> SharedFolder::Open(const std::string& path) {
  std::unique_ptr<SharedFolder> folder(new SharedFolder(path));
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return Failed(path, "cannot be made", error.value());
  if (absl::Status status = folder->MakeFolder(kTemporary); !status.ok()) return status;
  if (const auto now = folder->Now(); !now.ok()) return now.status();  // can it be written?
  folder->Sweep();
  return folder;
}

std::string SharedFolder::NewTemporary() {
  return absl::StrCat(root_, "/", kTemporary, "/", nonce_, "-", num_temporaries_.fetch_add(1));
}

// What servers left that died in the middle of something. Best effort: another server may be at the same.
void SharedFolder::Sweep() {
  const auto names = List(kTemporary);
  const auto now = Now();
  if (!names.ok() || !now.ok()) return;
  for (const std::string& name : *names) {
    const std::string path = absl::StrCat(kTemporary, "/", name);
    const auto modified = ModifiedAt(path);
    std::error_code ignored;
    if (modified.ok() && *modified < *now - kAbandonedAfter) fs::remove_all(Full(path), ignored);
  }
}

absl::StatusOr<absl::Time> SharedFolder::WriteFile(const std::string& full, std::string_view contents) {
  const std::string framed = Framed(contents);
  const Descriptor file(open(full.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.is_open()) return Failed(full, "cannot be made", errno);
  absl::Status status = WriteAll(file, full, std::as_bytes(std::span(framed)), absl::StatusCode::kUnavailable);
  if (!status.ok()) return status;
  if (fsync(file.number()) != 0) return Failed(full, "cannot be synced", errno);
  struct stat info;
  if (fstat(file.number(), &info) != 0) return Failed(full, "cannot be measured", errno);
  return absl::TimeFromTimespec(info.st_mtim);
}

absl::Status SharedFolder::PutNew(const std::string& path, std::string_view contents,
                                  const std::function<absl::Status(absl::Time now)>& may) {
  const std::string temporary = NewTemporary();
  const auto now = WriteFile(temporary, contents);
  absl::Status status = now.status();
  if (status.ok() && may != nullptr) status = may(*now);
  if (status.ok() && link(temporary.c_str(), Full(path).c_str()) != 0) {
    status = Failed(Full(path), "cannot be put in place", errno);
    // A network file system may have done it and lost the answer; the file itself knows.
    struct stat info;
    if (stat(temporary.c_str(), &info) == 0 && info.st_nlink == 2) status = absl::OkStatus();
  }
  unlink(temporary.c_str());
  return status.ok() ? SyncPut(Full(path)) : status;
}

absl::Status SharedFolder::Replace(const std::string& path, std::string_view contents) {
  const std::string temporary = NewTemporary();
  absl::Status status = WriteFile(temporary, contents).status();
  if (status.ok() && rename(temporary.c_str(), Full(path).c_str()) != 0) {
    status = Failed(Full(path), "cannot be put in place", errno);
  }
  if (!status.ok()) unlink(temporary.c_str());
  return status.ok() ? SyncPut(Full(path)) : status;
}

absl::Status SharedFolder::PutNewFolder(const std::string& path, const std::string& file, std::string_view contents) {
  const std::string temporary = NewTemporary();
  if (mkdir(temporary.c_str(), 0700) != 0) return Failed(temporary, "cannot be made", errno);
  const std::string inside = absl::StrCat(temporary, "/", file);
  absl::Status status = WriteFile(inside, contents).status();
  if (status.ok()) status = SyncParent(inside);
  // Fails if there is a folder already, since that one holds a file.
  if (status.ok() && rename(temporary.c_str(), Full(path).c_str()) != 0) {
    status = Failed(Full(path), "cannot be put in place", errno);
  }
  if (status.ok()) return SyncPut(Full(path));
  unlink(inside.c_str());
  rmdir(temporary.c_str());
  return status;
}

absl::StatusOr<std::string> SharedFolder::Read(const std::string& path) {
  const std::string full = Full(path);
  const Descriptor file(open(full.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.is_open()) return Failed(full, "cannot be opened", errno);
  std::string framed;
  char part[1 << 16];
  while (true) {
    const ssize_t count = read(file.number(), part, sizeof(part));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Failed(full, "cannot be read", errno == ESTALE ? ENOENT : errno);
    if (count == 0) break;
    framed.append(part, static_cast<size_t>(count));
  }
  uint64_t checksum = 0;
  if (framed.size() < sizeof(checksum)) return absl::DataLossError(absl::StrCat(full, " is cut off"));
  std::memcpy(&checksum, framed.data(), sizeof(checksum));
  std::string contents = framed.substr(sizeof(checksum));
  if (XXH3_64bits(contents.data(), contents.size()) != checksum) {
    return absl::DataLossError(absl::StrCat(full, " is damaged: its checksum does not fit"));
  }
  return contents;
}

absl::StatusOr<absl::Time> SharedFolder::ModifiedAt(const std::string& path) {
  struct stat info;
  if (stat(Full(path).c_str(), &info) != 0) return Failed(Full(path), "cannot be measured", errno);
  return absl::TimeFromTimespec(info.st_mtim);
}

absl::Status SharedFolder::Touch(const std::string& path) {
  if (utimensat(AT_FDCWD, Full(path).c_str(), nullptr, 0) == 0) return absl::OkStatus();
  return Failed(Full(path), "cannot be touched", errno);
}

absl::StatusOr<absl::Time> SharedFolder::Now() {
  const std::string temporary = NewTemporary();
  const Descriptor file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.is_open()) return Failed(temporary, "cannot be made", errno);
  struct stat info;
  const bool measured = fstat(file.number(), &info) == 0;
  const int error = errno;
  unlink(temporary.c_str());
  if (!measured) return Failed(temporary, "cannot be measured", error);
  return absl::TimeFromTimespec(info.st_mtim);
}

bool SharedFolder::Exists(const std::string& path) const { return access(Full(path).c_str(), F_OK) == 0; }

absl::StatusOr<std::vector<std::string>> SharedFolder::List(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator entries(Full(path), error);
  if (error == std::errc::no_such_file_or_directory) return names;
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    names.push_back(entries->path().filename());
  }
  if (error) return Failed(Full(path), "cannot be listed", error.value());
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status SharedFolder::MakeFolder(const std::string& path) {
  if (Exists(path)) return absl::OkStatus();
  if (const size_t slash = path.rfind('/'); slash != std::string::npos) {
    if (absl::Status status = MakeFolder(path.substr(0, slash)); !status.ok()) return status;
  }
  if (mkdir(Full(path).c_str(), 0700) != 0 && errno != EEXIST) return Failed(Full(path), "cannot be made", errno);
  return SyncParent(Full(path));
}

absl::Status SharedFolder::Remove(const std::string& path) {
  const std::string temporary = NewTemporary();
  if (rename(Full(path).c_str(), temporary.c_str()) != 0) {
    return errno == ENOENT ? absl::OkStatus() : Failed(Full(path), "cannot be moved away", errno);
  }
  const absl::Status synced = SyncParent(Full(path));
  std::error_code error;
  fs::remove_all(temporary, error);  // what stays is swept later
  return absl::IsNotFound(synced) ? absl::OkStatus() : synced;
}

}  // namespace statehouse
