#include "kernels/math/aligned_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace statehouse::kernels {
namespace {

constexpr int64_t kAlignment = 128;
// From this size on memory comes straight from the system, and goes back there: an allocator would keep it.
constexpr int64_t kLeastMapped = int64_t{512} << 10;
// From this size on at a huge-page boundary.
constexpr int64_t kHugePage = int64_t{2} << 20;
// Of a huge page that is cut in two the kernel keeps both parts for a while. Up to this size all is copied instead;
// beyond, that is little beside the rest, as it is where most of the buffer stays.
constexpr int64_t kMostCopied = 16 * kHugePage;
constexpr int64_t kSmallPart = 8;  // an eighth
constexpr int64_t kPage = 4096;

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

std::byte* Map(int64_t mapped_bytes) {
  void* raw = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return raw == MAP_FAILED ? nullptr : static_cast<std::byte*>(raw);
}

std::byte* MapHuge(int64_t mapped_bytes) {
  void* raw = mmap(nullptr, mapped_bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  // Trim to the boundary: what lies before and behind goes back.
  const uintptr_t begin = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  std::byte* data = static_cast<std::byte*>(raw) + (aligned - begin);
  if (aligned > begin) munmap(raw, aligned - begin);
  const uintptr_t behind = begin + kHugePage - aligned;
  if (behind > 0) munmap(data + mapped_bytes, behind);
  // A wish: without huge pages everything still works. The end, which would take a whole one, has small pages.
  madvise(data, mapped_bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return data;
}

}  // namespace

AlignedBuffer::~AlignedBuffer() { Free(); }

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  if (this != &other) {
    Free();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

bool AlignedBuffer::Allocate(int64_t num_bytes) {
  Free();
  // More than any machine has, and room for the rounding below without overflow.
  if (num_bytes < 0 || num_bytes > (int64_t{1} << 48)) return false;
  if (num_bytes == 0) return true;
  if (num_bytes >= kHugePage) {
    data_ = MapHuge(RoundUp(num_bytes, kPage));
  } else if (num_bytes >= kLeastMapped) {
    data_ = Map(RoundUp(num_bytes, kPage));
  } else {
    const int64_t rounded = RoundUp(num_bytes, kAlignment);
    data_ = static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
    if (data_ != nullptr) std::memset(data_, 0, rounded);
  }
  if (data_ != nullptr) size_ = num_bytes;
  return data_ != nullptr;
}

void AlignedBuffer::Shrink(int64_t num_bytes) {
  num_bytes = std::clamp<int64_t>(num_bytes, 0, size_);
  if (num_bytes == size_) return;
  const bool is_cut = num_bytes > kMostCopied || (num_bytes >= kLeastMapped && size_ - num_bytes <= size_ / kSmallPart);
  if (is_cut) {
    const int64_t kept = RoundUp(num_bytes, kPage), mapped = RoundUp(size_, kPage);
    if (mapped > kept) munmap(data_ + kept, static_cast<size_t>(mapped - kept));
    size_ = num_bytes;
    return;
  }
  AlignedBuffer smaller;
  if (!smaller.Allocate(num_bytes)) return;
  if (num_bytes > 0) std::memcpy(smaller.data_, data_, static_cast<size_t>(num_bytes));
  *this = std::move(smaller);
}

void AlignedBuffer::Free() {
  if (size_ >= kLeastMapped) {
    munmap(data_, RoundUp(size_, kPage));
  } else {
    std::free(data_);
  }
  data_ = nullptr;
  size_ = 0;
}

}  // namespace statehouse::kernels
