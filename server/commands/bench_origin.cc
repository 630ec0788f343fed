#include "server/commands/bench_origin.h"

#include <nlohmann/json.hpp>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/commands/report.h"
#include "statehouse/build_info.h"

namespace statehouse {
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
