// The footer of a snapshot file: who made it, where the sequence stands, and where its sections lie. Every method
// checks what it takes. Private to engine/state. Thread-safety: one thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/state/byte_source.h"
#include "engine/state/fingerprint.h"
#include "engine/state/snapshot.h"
#include "engine/state/snapshot_file.h"  // StateEncoding
#include "kernels/power_retention/canonical.h"

namespace statehouse {

// Where the bytes of a section lie. They are not read yet.
struct SnapshotSection {
  std::string name;
  int64_t offset = 0;     // a multiple of snapshot_format::kAlignment
  int64_t bytes = 0;      // in the file
  int64_t raw_bytes = 0;  // of its numbers
  uint64_t checksum = 0;  // of the bytes in the file
  bool compressed = false;
};

class SnapshotFooter {
 public:
  // Neither is owned; `name` opens messages. DATA_LOSS: damaged. Errors of `file`.
  static absl::StatusOr<SnapshotFooter> Read(const ByteSource& file, const std::string& name);

  StateEncoding encoding() const { return encoding_; }
  absl::StatusOr<Fingerprint> ReadFingerprint() const;
  // REQUIRES: the identity is that of `shape`. All of the point but used_floats; one extent per region.
  absl::Status ReadPoint(const SlotShape& shape, SnapshotPoint* point, std::vector<kernels::HeadExtent>* extents) const;

  // --- sections, in order; REQUIRES: ReadPoint() ---
  // Is the next one this one?
  bool NextIs(const std::string& section) const;
  // The next section, which must be this one, of `count` numbers of `each_bytes`.
  absl::StatusOr<SnapshotSection> Take(const std::string& section, const char* dtype, int64_t count,
                                       int64_t each_bytes);
  // Have all been taken?
  absl::Status CheckEnd() const;

  absl::Status Damaged(const std::string& what) const;

 private:
  explicit SnapshotFooter(const std::string& name) : name_(name) {}
  absl::Status Parse(const ByteSource& file);
  absl::Status ReadEncoding(int64_t format);
  absl::Status CheckForm(const SlotShape& shape, const SnapshotPoint& point, int64_t in_state_form) const;

  absl::Status Missing(const char* key) const;
  absl::Status Integer(const nlohmann::json& object, const char* key, int64_t* out) const;
  absl::Status Number(const nlohmann::json& object, const char* key, double* out) const;
  absl::Status Text(const nlohmann::json& object, const char* key, std::string* out) const;
  absl::Status HexNumber(const nlohmann::json& object, const char* key, uint64_t* out) const;

  const std::string& name_;
  nlohmann::json footer_;
  int64_t sections_end_ = 0;  // offset in the file
  size_t next_section_ = 0;
  bool may_be_compressed_ = false;
  StateEncoding encoding_ = StateEncoding::kF32;
};

}  // namespace statehouse
