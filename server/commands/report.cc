#include "server/commands/report.h"

#include <cerrno>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace statehouse {

std::string MachineName() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != line.npos) return line.substr(colon + 2);
  }
  return "";
}

absl::Status WriteReport(const char* flag, const std::string& path, const std::string& contents) {
  if (path.empty()) return absl::OkStatus();
  errno = EIO;  // unless it is told
  std::ofstream file(path, std::ios::binary);
  file << contents;
  file.close();
  if (file) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat(flag, ": cannot write ", path));
}

}  // namespace statehouse
