// How many cores this process may really use.
#pragma once

namespace statehouse::kernels {

// The cores that the scheduler lets this process run on, further bounded by the CPU quota of its control group
// (containers state their limit there), rounded up. At least 1. Reads files under /proc and /sys; call it at start, not
// in a loop.
int AvailableCores();

}  // namespace statehouse::kernels
