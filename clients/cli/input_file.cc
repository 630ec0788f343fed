#include "clients/cli/input_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace statehouse::cli {

absl::StatusOr<std::string> ReadInput(const std::string& what, const std::string& path, int64_t most_bytes) {
  constexpr size_t kPieceBytes = 1 << 20;
  const bool is_stdin = path == "-";
  const std::string name = absl::StrCat(what, ": ", is_stdin ? "standard input" : path);
  const int fd = is_stdin ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat(what, ": cannot read ", path));
  const absl::Cleanup close_it = [&] {
    if (!is_stdin) close(fd);
  };
  std::string contents;
  while (true) {
    const size_t held = contents.size();
    contents.resize(held + kPieceBytes);
    const ssize_t n = read(fd, contents.data() + held, kPieceBytes);
    const int error = errno;
    contents.resize(held + static_cast<size_t>(n > 0 ? n : 0));
    if (n == 0) return contents;
    if (n < 0 && error == EINTR) continue;
    if (n < 0 && error == EISDIR)
      return absl::InvalidArgumentError(absl::StrCat(name, " is a folder; expected a file"));
    if (n < 0)
      return absl::ErrnoToStatus(error, absl::StrCat(what, ": cannot read ", is_stdin ? "standard input" : path));
    if (static_cast<int64_t>(contents.size()) > most_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(name, " is too large; expected at most ", most_bytes, " bytes"));
    }
  }
}

}  // namespace statehouse::cli
