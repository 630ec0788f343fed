// A session as one file: what Export sends and Import takes. docs/sessions.md ("Session files") is the specification.
// Thread-safety: free functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/sessions/session_info.h"
#include "engine/state/byte_buffer.h"
#include "engine/state/fingerprint.h"
#include "engine/state/slot_pool.h"
#include "engine/state/snapshot_file.h"

namespace statehouse {

struct SessionFile {
  ByteBuffer bytes;
  // The first of them, up to its snapshot's, with the snapshot's size and checksum: what differs differs here.
  int64_t head_bytes = 0;
};

// Equal for equal images and options. Errors as WriteSnapshotInto().
absl::StatusOr<SessionFile> WriteSessionFile(const SessionImage& image, const Fingerprint& here,
                                             const SnapshotFileOptions& options);

// `shape` and `here` are the loaded model's. DATA_LOSS: damaged. FAILED_PRECONDITION: of another identity, by field, or
// of another numeric mode, or stored with loss, without `allow_other_numeric`. `memory`: as ReadSnapshot() says.
absl::StatusOr<SessionImage> ReadSessionFile(std::span<const std::byte> file, const Fingerprint& here,
                                             const SlotShape& shape, int64_t vocab_size, bool allow_other_numeric,
                                             SnapshotMemory* memory = nullptr);

}  // namespace statehouse
