// What host code needs of a GPU: its properties, a stream, memory of its own.
//
// All objects belong to the device that was current when they were made. Thread-safety: none; one thread uses one
// object at a time.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace statehouse::kernels {

struct DeviceProperties {
  std::string name;
  int index = 0;
  int major = 0;  // compute capability
  int minor = 0;
  int num_multiprocessors = 0;
  int max_shared_bytes_per_block = 0;  // after opting in
  int64_t l2_bytes = 0;
  int64_t total_bytes = 0;
};

// FAILED_PRECONDITION if there is no GPU or no driver, INVALID_ARGUMENT for an index that does not exist.
absl::StatusOr<DeviceProperties> GetDeviceProperties(int index);

// How many GPUs this process can use; 0 without a driver.
int CountDevices();

// Device memory, freed with the object. Empty until Allocate().
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  // Frees what it holds and allocates anew; contents are undefined. RESOURCE_EXHAUSTED says how many bytes were asked
  // for.
  absl::Status Allocate(size_t bytes);

  // Copies from or to host memory and waits. REQUIRES: offset + bytes <= bytes().
  absl::Status Upload(const void* host, size_t bytes, size_t offset = 0);
  absl::Status Download(void* host, size_t bytes, size_t offset = 0) const;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// A non-blocking stream, destroyed with the object.
class Stream {
 public:
  static absl::StatusOr<Stream> Make();
  ~Stream();
  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&& other) noexcept;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }
  absl::Status Synchronize() const;

 private:
  explicit Stream(cudaStream_t stream) : stream_(stream) {}
  cudaStream_t stream_ = nullptr;
};

}  // namespace statehouse::kernels
