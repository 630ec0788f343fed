#include "models/cuda/cuda_slot_memory.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"
#include "models/cuda/profile_range.h"

namespace statehouse {
namespace {

constexpr int64_t kStagingFloats = int64_t{4} << 20;  // 16 MB: copies of that size reach the link's rate

}  // namespace

absl::StatusOr<std::unique_ptr<SlotMemory>> CudaSlotMemory::Allocate(int64_t slot_bytes, int64_t num_slots,
                                                                     int device_idx, cudaStream_t stream) {
  std::unique_ptr<CudaSlotMemory> made(new CudaSlotMemory(slot_bytes, device_idx, stream));
  made->UseDevice();
  absl::Status status = made->status_;
  if (status.ok()) status = made->slots_.Allocate(static_cast<size_t>(slot_bytes) * num_slots);
  if (absl::IsResourceExhausted(status)) {
    return absl::ResourceExhaustedError(absl::StrCat("state memory: ", num_slots, " slots of ", slot_bytes,
                                                     " bytes: ", std::string(status.message()),
                                                     "; lower --max-num-seqs or --state-memory"));
  }
  if (status.ok()) status = made->staging_.Allocate(kStagingFloats * sizeof(float));
  if (!status.ok()) return status;
  made->Note(cudaMemsetAsync(made->slots_.as<char>(), 0, made->slots_.bytes(), stream), "cudaMemsetAsync");
  if (!made->status_.ok()) return made->status_;
  return made;
}

CudaSlotMemory::~CudaSlotMemory() { cudaStreamSynchronize(stream_); }

void CudaSlotMemory::Note(cudaError_t result, const char* call) {
  if (result != cudaSuccess && status_.ok()) status_ = kernels::CudaStatus(result, call);
}

void CudaSlotMemory::Zero(float* to, int64_t floats) {
  UseDevice();
  Note(cudaMemsetAsync(to, 0, floats * sizeof(float), stream_), "cudaMemsetAsync of a slot");
}

void CudaSlotMemory::Copy(const float* from, float* to, int64_t floats) {
  const ProfileRange range("copy");
  UseDevice();
  Note(cudaMemcpyAsync(to, from, floats * sizeof(float), cudaMemcpyDeviceToDevice, stream_), "copy between slots");
}

void CudaSlotMemory::Write(const float* host, float* to, int64_t floats) {
  const ProfileRange range("copy");
  UseDevice();
  for (int64_t done = 0; done < floats; done += kStagingFloats) {
    const int64_t count = std::min(kStagingFloats, floats - done);
    std::memcpy(staging_.as<float>(), host + done, count * sizeof(float));
    Note(cudaMemcpyAsync(to + done, staging_.as<float>(), count * sizeof(float), cudaMemcpyHostToDevice, stream_),
         "copy into a slot");
    Note(cudaStreamSynchronize(stream_), "copy into a slot");
  }
}

void CudaSlotMemory::Read(const float* from, float* host, int64_t floats) {
  const ProfileRange range("copy");
  UseDevice();
  for (int64_t done = 0; done < floats; done += kStagingFloats) {
    const int64_t count = std::min(kStagingFloats, floats - done);
    Note(cudaMemcpyAsync(staging_.as<float>(), from + done, count * sizeof(float), cudaMemcpyDeviceToHost, stream_),
         "copy out of a slot");
    Note(cudaStreamSynchronize(stream_), "copy out of a slot");
    std::memcpy(host + done, staging_.as<float>(), count * sizeof(float));
  }
}

}  // namespace statehouse
