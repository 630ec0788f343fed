#include "kernels/cuda/device.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"

namespace statehouse::kernels {

int CountDevices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // no driver is no error to those who ask
    return 0;
  }
  return count;
}

absl::StatusOr<DeviceProperties> GetDeviceProperties(int index) {
  // The runtime calls a missing driver an old one; most machines without a GPU have none.
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
    return absl::FailedPreconditionError("this machine has no NVIDIA driver");
  }
  int count = 0;
  if (absl::Status status = CudaStatus(cudaGetDeviceCount(&count), "cudaGetDeviceCount"); !status.ok()) return status;
  if (index < 0 || index >= count) {
    return absl::InvalidArgumentError(
        absl::StrCat("device cuda:", index, ": there are ", count, " CUDA devices, numbered from 0"));
  }
  cudaDeviceProp found;
  if (absl::Status status = CudaStatus(cudaGetDeviceProperties(&found, index), "cudaGetDeviceProperties");
      !status.ok()) {
    return status;
  }
  return DeviceProperties{.name = found.name,
                          .index = index,
                          .major = found.major,
                          .minor = found.minor,
                          .num_multiprocessors = found.multiProcessorCount,
                          .max_shared_bytes_per_block = static_cast<int>(found.sharedMemPerBlockOptin),
                          .l2_bytes = found.l2CacheSize,
                          .total_bytes = static_cast<int64_t>(found.totalGlobalMem)};
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) cudaFree(data_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

absl::Status DeviceBuffer::Allocate(size_t bytes) {
  if (data_ != nullptr) {
    const absl::Status status = CudaStatus(cudaFree(std::exchange(data_, nullptr)), "cudaFree");
    bytes_ = 0;
    if (!status.ok()) return status;
  }
  if (bytes == 0) return absl::OkStatus();
  const cudaError_t result = cudaMalloc(&data_, bytes);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // not sticky; later calls must not report it again
    data_ = nullptr;
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    return absl::ResourceExhaustedError(
        absl::StrCat("GPU memory: ", bytes, " bytes needed, ", free_bytes, " of ", total_bytes, " free"));
  }
  if (absl::Status status = CudaStatus(result, "cudaMalloc"); !status.ok()) return status;
  bytes_ = bytes;
  return absl::OkStatus();
}

absl::Status DeviceBuffer::Upload(const void* host, size_t bytes, size_t offset) {
  if (bytes == 0) return absl::OkStatus();
  return CudaStatus(cudaMemcpy(as<char>() + offset, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
}

absl::Status DeviceBuffer::Download(void* host, size_t bytes, size_t offset) const {
  if (bytes == 0) return absl::OkStatus();
  return CudaStatus(cudaMemcpy(host, as<char>() + offset, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy to the host");
}

absl::StatusOr<Stream> Stream::Make() {
  cudaStream_t stream = nullptr;
  const absl::Status status =
      CudaStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  if (!status.ok()) return status;
  return Stream(stream);
}

Stream::~Stream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

Stream::Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(stream_, other.stream_);
  return *this;
}

absl::Status Stream::Synchronize() const { return CudaStatus(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

}  // namespace statehouse::kernels
