// Reading the layers of a snapshot file into regions: several layers at a time, and of each a piece that stays in a
// core's own cache while it is read, checked and rearranged. Private to engine/state.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/state/byte_source.h"
#include "engine/state/snapshot.h"
#include "engine/state/snapshot_file.h"  // StateEncoding
#include "engine/state/snapshot_footer.h"
#include "kernels/power_retention/canonical.h"

namespace statehouse {

// The sections of one layer, as their sizes were checked.
struct LayerSections {
  SnapshotSection numbers;
  SnapshotSection scales;  // encoding kInt8 only
  SnapshotSection exact;   // not of encoding kF32
};

// What is read and where it goes; nothing is owned.
struct LayersToRead {
  const ByteSource* file = nullptr;
  const std::string* name = nullptr;  // opens messages
  StateEncoding encoding = StateEncoding::kF32;
  const SlotShape* shape = nullptr;
  std::span<const kernels::HeadExtent> extents;  // of each region
  std::span<const LayerSections> layers;
  int64_t used_floats = 0;   // of each region
  float* regions = nullptr;  // [num_regions, used_floats], zero before
};

// All of them, by the caller's thread and some more. DATA_LOSS: a checksum does not fit; the first layer's that failed.
// RESOURCE_EXHAUSTED: too little memory. Errors of the file. The regions then hold anything.
absl::Status ReadLayers(const LayersToRead& read);

// A whole section, checked and unpacked: in `raw` (raw_bytes long) or where it lies in memory. `packed` holds it
// before, if it is compressed. Errors as above.
absl::StatusOr<std::span<const std::byte>> ReadSection(const ByteSource& file, const std::string& name,
                                                       const SnapshotSection& section, std::span<std::byte> raw,
                                                       kernels::AlignedBuffer* packed);

}  // namespace statehouse
