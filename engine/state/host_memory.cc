#include "engine/state/host_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace statehouse {
namespace {

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
std::optional<int64_t> NumberIn(const char* path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

// What the control group (version 2, as containers see it) leaves.
std::optional<int64_t> ControlGroupRoom() {
  const std::optional<int64_t> limit = NumberIn("/sys/fs/cgroup/memory.max");
  const std::optional<int64_t> used = NumberIn("/sys/fs/cgroup/memory.current");
  if (!limit.has_value() || !used.has_value()) return std::nullopt;
  return std::max<int64_t>(0, *limit - *used);
}

}  // namespace

std::optional<int64_t> AvailableHostBytes() {
  const std::optional<int64_t> host = MemAvailable();
  const std::optional<int64_t> group = ControlGroupRoom();
  if (!host.has_value()) return group;
  return std::min(*host, group.value_or(std::numeric_limits<int64_t>::max()));
}

}  // namespace statehouse
