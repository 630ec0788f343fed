// How much memory this process may still take. Thread-safety: may be called from any thread.
#pragma once

#include <cstdint>
#include <optional>

namespace statehouse {

// Bytes that the host, or this process's control group, can still give without swapping; empty if it does not say.
std::optional<int64_t> AvailableHostBytes();

}  // namespace statehouse
