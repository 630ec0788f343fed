// Bytes that grow at their end: large ones in large pages, of which only those that are written to take memory, and
// nothing is filled with zeros before. Thread-safety: one thread; what Extend() gave may be written by several.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/math/aligned_buffer.h"

namespace statehouse {

class ByteBuffer {
 public:
  // Room for so many in all, so that what is added moves nothing. False, here and below: too little memory.
  [[nodiscard]] bool Reserve(int64_t bytes);
  [[nodiscard]] bool Append(std::span<const std::byte> bytes);
  // So many more, which hold anything: they are the caller's to write.
  [[nodiscard]] bool Extend(int64_t bytes);
  // Without those beyond `bytes` (at most size()).
  void Truncate(int64_t bytes) { size_ = bytes; }

  int64_t size() const { return size_; }
  std::byte* data() { return buffer_.data(); }
  std::span<const std::byte> bytes() const { return {buffer_.data(), static_cast<size_t>(size_)}; }

 private:
  kernels::AlignedBuffer buffer_;
  int64_t size_ = 0;
};

}  // namespace statehouse
