// Which device a model computes on: what --device says, and what is there.
// Thread-safety: free functions.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace statehouse {

struct DeviceChoice {
  int gpu = -1;     // its number; -1: the CPU
  std::string why;  // what was chosen and for which reason, for the log
};

// `wanted`: "auto", "cpu", "cuda" (the first GPU) or "cuda:N". "auto" takes the first GPU that this build has code for,
// else the CPU. INVALID_ARGUMENT lists what may be said; for "cuda": FAILED_PRECONDITION without a GPU or with too old
// a driver, UNIMPLEMENTED for a GPU or a build without code for it, INVALID_ARGUMENT for a number that does not exist.
absl::StatusOr<DeviceChoice> ChooseDevice(std::string_view wanted);
// Whether that may be said at all, without looking for a GPU (which starts threads of the driver's).
absl::Status CheckDeviceName(std::string_view wanted);

}  // namespace statehouse
