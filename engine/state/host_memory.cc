#include "engine/state/host_memory.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

namespace statehouse {
namespace {

namespace fs = std::filesystem;

// MemAvailable of /proc/meminfo: free pages and those that can be dropped.
std::optional<int64_t> MemAvailable() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  int64_t kibibytes = 0;
  std::string rest;
  while (file >> name >> kibibytes) {
    if (name == "MemAvailable:") return kibibytes * 1024;
    std::getline(file, rest);
  }
  return std::nullopt;
}

// A number from a file that may be missing or say "max".
std::optional<int64_t> NumberIn(const fs::path& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

// Bytes of the group that the kernel drops when it needs them: pages of files that nobody wrote to.
int64_t DroppableBytes(const fs::path& folder) {
  std::ifstream file(folder / "memory.stat");
  int64_t sum = 0;
  int64_t bytes = 0;
  for (std::string name; file >> name >> bytes;) {
    if (name == "inactive_file" || name == "active_file") sum += bytes;
    if (name == "file_dirty" || name == "file_writeback") sum -= bytes;
  }
  return std::max<int64_t>(0, sum);
}

// The least that the control groups (version 2, as containers see them) from this process's up to the root leave.
std::optional<int64_t> ControlGroupRoom(const fs::path& mount, const fs::path& group) {
  std::optional<int64_t> least;
  for (fs::path folder = group;; folder = folder.parent_path()) {
    const std::optional<int64_t> limit = NumberIn(mount / folder / "memory.max");
    const std::optional<int64_t> used = NumberIn(mount / folder / "memory.current");
    if (limit.has_value() && used.has_value()) {
      const int64_t room = std::max<int64_t>(0, *limit - std::max<int64_t>(0, *used - DroppableBytes(mount / folder)));
      least = std::min(room, least.value_or(room));
    }
    if (folder.empty()) return least;
  }
}

// This process's group, relative to the mount; the root if it lies outside our namespace.
fs::path OwnGroup() {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.rfind("0::", 0) != 0) continue;
    const fs::path group = fs::path(line.substr(3)).relative_path();
    return std::find(group.begin(), group.end(), "..") == group.end() ? group : fs::path();
  }
  return {};
}

}  // namespace

std::optional<int64_t> AvailableHostBytes() {
  const std::optional<int64_t> host = MemAvailable();
  const std::optional<int64_t> group = ControlGroupRoom("/sys/fs/cgroup", OwnGroup());
  if (!host.has_value()) return group;
  return std::min(*host, group.value_or(std::numeric_limits<int64_t>::max()));
}

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total_pages = 0, resident_pages = 0;
  if (!(statm >> total_pages >> resident_pages)) return 0;
  return resident_pages * sysconf(_SC_PAGESIZE);
}

}  // namespace statehouse
