// Where the figures of a benchmark come from: the head of its JSON. Thread-safety: functions without state.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace statehouse {

// "benchmark", version, commit, build_type, machine, cores, date.
nlohmann::ordered_json BenchOrigin(const char* benchmark);

}  // namespace statehouse
