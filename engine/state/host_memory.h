// How much memory this process has and may still take. Thread-safety: may be called from any thread.
#pragma once

#include <cstdint>
#include <optional>

namespace statehouse {

// Bytes that the host, or this process's control group, can still give without swapping; empty if it does not say.
std::optional<int64_t> AvailableHostBytes();
// Bytes of this process that are in memory now; 0 if the system does not say.
int64_t ResidentBytes();

}  // namespace statehouse
