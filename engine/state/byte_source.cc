#include "engine/state/byte_source.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/math/aligned_buffer.h"

namespace statehouse {
namespace {

// Bytes in memory that `Owner` keeps.
template <typename Owner>
class MemorySource final : public ByteSource {
 public:
  MemorySource(Owner owner, std::span<const std::byte> bytes) : owner_(std::move(owner)), bytes_(bytes) {}

  int64_t size() const override { return static_cast<int64_t>(bytes_.size()); }
  absl::StatusOr<std::span<const std::byte>> View(int64_t offset, std::span<std::byte> scratch) const override {
    const std::span<const std::byte> bytes = bytes_.subspan(static_cast<size_t>(offset), scratch.size());
    if (reinterpret_cast<uintptr_t>(bytes.data()) % alignof(float) == 0) return bytes;
    std::copy(bytes.begin(), bytes.end(), scratch.begin());
    return std::span<const std::byte>(scratch);
  }

 private:
  const Owner owner_;
  const std::span<const std::byte> bytes_;
};

struct NoOwner {};

}  // namespace

std::unique_ptr<ByteSource> ViewOf(std::span<const std::byte> bytes) {
  return std::make_unique<MemorySource<NoOwner>>(NoOwner(), bytes);
}

std::unique_ptr<ByteSource> SourceOf(std::vector<std::byte> bytes) {
  // A moved vector keeps its memory.
  const std::span<const std::byte> view = bytes;
  return std::make_unique<MemorySource<std::vector<std::byte>>>(std::move(bytes), view);
}

absl::StatusOr<std::unique_ptr<ByteSource>> ReadIntoMemory(std::unique_ptr<ByteSource> source) {
  kernels::AlignedBuffer buffer;
  if (!buffer.Allocate(source->size())) {
    return absl::ResourceExhaustedError(absl::StrCat("too little memory to read ", source->size(), " bytes"));
  }
  const std::span<std::byte> room(buffer.data(), static_cast<size_t>(source->size()));
  const auto bytes = source->View(0, room);
  if (!bytes.ok()) return bytes.status();
  if (bytes->data() != room.data()) return source;  // it is in memory
  return std::make_unique<MemorySource<kernels::AlignedBuffer>>(std::move(buffer), *bytes);
}

}  // namespace statehouse
