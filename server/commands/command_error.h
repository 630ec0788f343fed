// How a command of this folder fails. Thread-safety: function without state.
#pragma once

#include "absl/status/status.h"

namespace statehouse {

// Says "statehouse: <message>" on standard error; returns the program's exit status, 1.
int FailCommand(const absl::Status& status);

}  // namespace statehouse
