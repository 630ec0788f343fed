#include "kernels/parallel/core_count.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

namespace statehouse::kernels {
namespace {

namespace fs = std::filesystem;

int AffinityCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));  // more cores than a cpu_set_t holds
}

// Cores that `quota` out of every `period` microseconds amount to; 0 if the files state no limit.
double QuotaV2(const fs::path& folder) {
  std::ifstream file(folder / "cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return 0;
  std::istringstream text(quota);
  double value = 0;
  return (text >> value) && value > 0 ? value / period : 0;
}

double QuotaV1(const fs::path& folder) {
  std::ifstream quota_file(folder / "cpu.cfs_quota_us");
  std::ifstream period_file(folder / "cpu.cfs_period_us");
  double quota = 0;
  double period = 0;
  if (!(quota_file >> quota) || !(period_file >> period) || quota <= 0 || period <= 0) return 0;
  return quota / period;
}

bool HasController(const std::string& controllers, const std::string& name) {
  std::istringstream list(controllers);
  for (std::string item; std::getline(list, item, ',');) {
    if (item == name) return true;
  }
  return false;
}

// The tightest quota on the way from this process's control group up to the root, in cores; 0 if there is none.
double CgroupQuota() {
  double tightest = 0;
  const auto consider = [&](double cores) {
    if (cores > 0 && (tightest == 0 || cores < tightest)) tightest = cores;
  };
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // hierarchy:controllers:path
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && !HasController(controllers, "cpu")) continue;
    const fs::path root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
    // Relative to our own mount; a path with ".." lies outside our namespace, then only the root can be read.
    fs::path folder = fs::path(line.substr(second + 1)).relative_path();
    if (std::find(folder.begin(), folder.end(), "..") != folder.end()) folder.clear();
    for (;; folder = folder.parent_path()) {
      consider(v2 ? QuotaV2(root / folder) : QuotaV1(root / folder));
      if (folder.empty()) break;
    }
  }
  return tightest;
}

}  // namespace

int AvailableCores() {
  const int cores = AffinityCores();
  const double quota = CgroupQuota();
  if (quota <= 0) return cores;
  return std::clamp(static_cast<int>(std::ceil(quota)), 1, cores);
}

}  // namespace statehouse::kernels
