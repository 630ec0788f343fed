// Bytes that are read in pieces, from any place: a file, or memory. What is open can be read to its end, also if its
// name is removed or given to something else meanwhile. Thread-safety: several threads may read at a time; reading
// blocks on a disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace statehouse {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual int64_t size() const = 0;
  // The bytes from `offset` on that fill `scratch`: in it, or where they lie in memory. Aligned for floats if `scratch`
  // is. Valid as long as both. DATA_LOSS: it ends before (a file that was cut). Other errors are the disk's. REQUIRES:
  // offset >= 0, and offset + scratch.size() <= size().
  virtual absl::StatusOr<std::span<const std::byte>> View(int64_t offset, std::span<std::byte> scratch) const = 0;
};

// `bytes` outlive it.
std::unique_ptr<ByteSource> ViewOf(std::span<const std::byte> bytes);
std::unique_ptr<ByteSource> SourceOf(std::vector<std::byte> bytes);
// All of `source`, read here and now. RESOURCE_EXHAUSTED: too little memory. Errors of View().
absl::StatusOr<std::unique_ptr<ByteSource>> ReadIntoMemory(std::unique_ptr<ByteSource> source);

}  // namespace statehouse
