#include "engine/state/posix_file.h"

#include <fcntl.h>
#include <sys/types.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"

namespace statehouse {

absl::Status FileError(const std::string& path, const char* what, int error, absl::StatusCode otherwise) {
  const std::string text = absl::StrCat(path, ": ", what, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(text);
    case EEXIST:
    case ENOTEMPTY:
      return absl::AlreadyExistsError(text);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMLINK:
      return absl::ResourceExhaustedError(absl::StrCat(text, "; free some space"));
    default:
      return absl::Status(otherwise, text);
  }
}

absl::Status WriteAll(const Descriptor& file, const std::string& path, std::span<const std::byte> bytes,
                      absl::StatusCode otherwise) {
  while (!bytes.empty()) {
    const ssize_t written = write(file.number(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FileError(path, "cannot be written", errno, otherwise);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status SyncFolderOf(const std::string& path, absl::StatusCode otherwise) {
  const std::string parent = std::filesystem::path(path).parent_path();
  const std::string folder = parent.empty() ? "." : parent;
  const Descriptor descriptor(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptor.is_open()) return FileError(folder, "cannot be opened", errno, otherwise);
  if (fsync(descriptor.number()) != 0) return FileError(folder, "cannot be synced", errno, otherwise);
  return absl::OkStatus();
}

}  // namespace statehouse
