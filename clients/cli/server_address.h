// The forms of an address that clients take. Thread-safety: functions without state.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace statehouse::cli {

bool IsSocketFile(const std::string& address);

// Whether what is sent to that address stays on this machine. Names but "localhost" may mean anything.
bool IsLocal(const std::string& address);

// OK for host:port, [v6]:port with a port of 1 to 65535, and unix:PATH; else INVALID_ARGUMENT of --address.
absl::Status CheckAddress(const std::string& address);

}  // namespace statehouse::cli
