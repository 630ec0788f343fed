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
#include "engine/state/byte_buffer.h"
#include "engine/state/byte_source.h"
#include "engine/state/file_layer.h"
#include "engine/state/fingerprint.h"
#include "engine/state/snapshot.h"

namespace statehouse {

// How the numbers of the state are stored. Beside kF32 with loss, which the file declares and whoever loads it must
// allow; rounding is at random by how near, so that it does not drift.
enum class StateEncoding : uint8_t { kF32, kBf16, kInt8 };
const char* StateEncodingName(StateEncoding encoding);  // "f32", "bf16", "int8"

struct SnapshotFileOptions {
  StateEncoding encoding = StateEncoding::kF32;
  int zstd_level = 0;  // 1 … 19; 0: not compressed
};

// Writes front to back, one layer in memory at a time. Errors are the sink's; FAILED_PRECONDITION: a number is not
// finite, and the encoding is not kF32; INVALID_ARGUMENT: the level.
absl::Status WriteSnapshot(const Snapshot& snapshot, const Fingerprint& fingerprint, const ByteSink& sink,
                           const SnapshotFileOptions& options = {});

// The same file at the end of `memory`, by several threads. RESOURCE_EXHAUSTED: too little of it. After an error it
// holds what it held.
absl::Status WriteSnapshotInto(const Snapshot& snapshot, const Fingerprint& fingerprint, ByteBuffer* memory,
                               const SnapshotFileOptions& options = {});

struct LoadedSnapshot {
  std::shared_ptr<const Snapshot> snapshot;
  Exactness exactness = Exactness::kExact;
  std::string numeric_difference;  // why it is not exact
  StateEncoding encoding = StateEncoding::kF32;
};

// `file` is all of it; `name` opens error messages; `shape` is the loaded model's. Read in pieces, by several threads:
// no byte is used before its checksum fits. DATA_LOSS: damaged (checksum, structure, sizes); FAILED_PRECONDITION:
// another identity, by field, or another numeric mode or a state that was stored with loss, and `allow_other_numeric`
// is not set. RESOURCE_EXHAUSTED: too little memory. Errors of the source. The numbers lie in `memory`'s if that is
// given.
absl::StatusOr<LoadedSnapshot> ReadSnapshot(const ByteSource& file, const std::string& name, const Fingerprint& here,
                                            const SlotShape& shape, bool allow_other_numeric,
                                            SnapshotMemory* memory = nullptr);
absl::StatusOr<LoadedSnapshot> ReadSnapshot(std::span<const std::byte> file, const std::string& name,
                                            const Fingerprint& here, const SlotShape& shape, bool allow_other_numeric,
                                            SnapshotMemory* memory = nullptr);

}  // namespace statehouse
