#include "server/commands/bench_origin.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "statehouse/build_info.h"

namespace statehouse {
namespace {

// The processor's name as Linux gives it; empty where it gives none.
std::string MachineName() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != line.npos) return line.substr(colon + 2);
  }
  return "";
}

}  // namespace

nlohmann::ordered_json BenchOrigin(const char* benchmark) {
  const BuildInfo& build = GetBuildInfo();
  return {{"benchmark", benchmark},
          {"version", build.version},
          {"commit", build.commit},
          {"build_type", build.build_type},
          {"machine", MachineName()},
          {"cores", std::thread::hardware_concurrency()},
          {"date", absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone())}};
}

}  // namespace statehouse
