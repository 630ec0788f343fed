// What every benchmark's report needs. Thread-safety: functions without state.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace statehouse {

// The processor's name as Linux gives it; empty where it gives none.
std::string MachineName();
// Whether WriteReport() will be able to, as far as can be told before the measurement; makes and changes no file.
absl::Status CheckReportFile(const char* flag, const std::string& path);
// To the file that `flag` names; nothing if `path` is empty. Errors: the system's.
absl::Status WriteReport(const char* flag, const std::string& path, const std::string& contents);

}  // namespace statehouse
