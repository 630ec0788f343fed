// Snapshots of any position without the work of getting there: their states hold numbers that nobody computed. For
// measuring how fast they move, which does not depend on what they say. Thread-safety: pure function.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/state/snapshot.h"

namespace statehouse {

// REQUIRES: position >= 1 and within what the shape may hold. RESOURCE_EXHAUSTED: too little memory.
absl::StatusOr<std::shared_ptr<const Snapshot>> MadeUpSnapshot(const SlotShape& shape, int64_t vocab_size,
                                                               int64_t position);

}  // namespace statehouse
