#include "server/commands/report.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

absl::Status CannotWrite(const char* flag, const std::string& path, int error) {
  return absl::ErrnoToStatus(error, absl::StrCat(flag, ": cannot write ", path));
}

}  // namespace

std::string MachineName() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != line.npos) return line.substr(colon + 2);
  }
  return "";
}

absl::Status CheckReportFile(const char* flag, const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  struct stat about;
  const bool exists = stat(path.c_str(), &about) == 0;
  if (!exists && errno != ENOENT) return CannotWrite(flag, path, errno);
  if (exists && S_ISDIR(about.st_mode)) return CannotWrite(flag, path, EISDIR);
  // A file that is not there yet is made in its folder.
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const int can_write =
      exists ? access(path.c_str(), W_OK) : access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK);
  return can_write == 0 ? absl::OkStatus() : CannotWrite(flag, path, errno);
}

absl::Status WriteReport(const char* flag, const std::string& path, const std::string& contents) {
  if (path.empty()) return absl::OkStatus();
  errno = EIO;  // unless it is told
  std::ofstream file(path, std::ios::binary);
  file << contents;
  file.close();
  if (file) return absl::OkStatus();
  return CannotWrite(flag, path, errno);
}

}  // namespace statehouse
