// Zero-filled memory aligned to 128 bytes (a cache-line pair). Large ones come from the system, from 2 MiB in huge
// pages where the kernel gives them: only its whole huge pages are asked for as such, so that what is written to takes
// the memory that size() says, and pages that are never written to take none.
#pragma once

#include <cstddef>
#include <cstdint>

namespace statehouse::kernels {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;

  // Returns false, leaving the buffer empty, if the memory cannot be had. Contents are zero.
  [[nodiscard]] bool Allocate(int64_t num_bytes);
  // Keeps the first `num_bytes` (at most size()) and gives back what the others took. Small ones are copied, for which
  // there may be too little memory: then all stays as it is.
  void Shrink(int64_t num_bytes);

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data_);
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_);
  }

 private:
  void Free();
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace statehouse::kernels
