// Snapshots as files: docs/snapshot-format.md is the specification. The numbers are canonical (kernels/power_retention/
// canonical.h), so that another build, device or language reads them. Thread-safety: free functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/state/file_layer.h"
#include "engine/state/fingerprint.h"
#include "engine/state/snapshot.h"

namespace statehouse {

// Writes front to back, one layer in memory at a time. Errors are the sink's.
absl::Status WriteSnapshot(const Snapshot& snapshot, const Fingerprint& fingerprint, const ByteSink& sink);

struct LoadedSnapshot {
  std::shared_ptr<const Snapshot> snapshot;
  Exactness exactness = Exactness::kExact;
  std::string numeric_difference;  // why it is not exact
};

// `file` is all of it; `name` opens error messages; `shape` is the loaded model's. Every byte that is used is checked
// before it is. DATA_LOSS: damaged (checksum, structure, sizes); FAILED_PRECONDITION: another identity, by field, or
// another numeric mode and `allow_other_numeric` is not set.
absl::StatusOr<LoadedSnapshot> ReadSnapshot(std::span<const std::byte> file, const std::string& name,
                                            const Fingerprint& here, const SlotShape& shape, bool allow_other_numeric);

}  // namespace statehouse
