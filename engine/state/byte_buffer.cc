#include "engine/state/byte_buffer.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace statehouse {

bool ByteBuffer::Reserve(int64_t bytes) {
  if (bytes <= buffer_.size()) return true;
  kernels::AlignedBuffer larger;
  if (!larger.Allocate(std::max(bytes, 2 * buffer_.size()))) return false;
  if (size_ > 0) std::memcpy(larger.data(), buffer_.data(), static_cast<size_t>(size_));
  buffer_ = std::move(larger);
  return true;
}

bool ByteBuffer::Append(std::span<const std::byte> bytes) {
  const int64_t end = size_;
  if (!Extend(static_cast<int64_t>(bytes.size()))) return false;
  if (!bytes.empty()) std::memcpy(buffer_.data() + end, bytes.data(), bytes.size());
  return true;
}

bool ByteBuffer::Extend(int64_t bytes) {
  if (!Reserve(size_ + bytes)) return false;
  size_ += bytes;
  return true;
}

}  // namespace statehouse
