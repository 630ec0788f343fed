#include "models/cuda/cuda_slot_memory.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"
#include "models/cuda/profile_range.h"

namespace statehouse {
namespace {

// What one thread copies at a time; places hold a whole number of them.
constexpr int64_t kStretchFloats = int64_t{1} << 14;

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

absl::StatusOr<std::unique_ptr<SlotMemory>> CudaSlotMemory::Allocate(int64_t slot_bytes, int64_t num_slots,
                                                                     int device_idx, cudaStream_t stream,
                                                                     const CudaEvent* settled,
                                                                     kernels::ThreadPool* pool) {
  if (absl::Status status = kernels::CudaStatus(cudaSetDevice(device_idx), "cudaSetDevice"); !status.ok())
    return status;
  absl::StatusOr<kernels::Stream> copies = kernels::Stream::Make();
  if (!copies.ok()) return copies.status();
  std::unique_ptr<CudaSlotMemory> made(
      new CudaSlotMemory(slot_bytes, device_idx, stream, settled, pool, *std::move(copies)));
  absl::Status status = made->status_;
  if (status.ok()) status = made->slots_.Allocate(static_cast<size_t>(slot_bytes) * num_slots);
  if (absl::IsResourceExhausted(status)) {
    return absl::ResourceExhaustedError(absl::StrCat("state memory: ", num_slots, " slots of ", slot_bytes,
                                                     " bytes: ", std::string(status.message()),
                                                     "; lower --max-num-seqs or --state-memory"));
  }
  if (status.ok()) status = made->staging_.Allocate(kPlaces * kPlaceFloats * sizeof(float));
  if (!status.ok()) return status;
  made->Note(cudaMemsetAsync(made->slots_.as<char>(), 0, made->slots_.bytes(), stream), "cudaMemsetAsync");
  made->Note(made->changed_.Record(stream));
  if (!made->status_.ok()) return made->status_;
  return made;
}

CudaSlotMemory::~CudaSlotMemory() {
  cudaStreamSynchronize(copies_.get());
  cudaStreamSynchronize(stream_);
}

void CudaSlotMemory::BeginCopy() {
  UseDevice();
  Note(changed_.HoldUp(copies_.get()));
  Note(settled_->HoldUp(copies_.get()));
}

void CudaSlotMemory::Zero(float* to, int64_t floats) {
  UseDevice();
  Note(cudaMemsetAsync(to, 0, floats * sizeof(float), stream_), "cudaMemsetAsync of a slot");
  Note(changed_.Record(stream_));
}

void CudaSlotMemory::Copy(const float* from, float* to, int64_t floats) {
  const ProfileRange range("copy");
  UseDevice();
  Note(cudaMemcpyAsync(to, from, floats * sizeof(float), cudaMemcpyDeviceToDevice, stream_), "copy between slots");
  Note(changed_.Record(stream_));
}

template <typename Fn>
void CudaSlotMemory::ForEachStretch(int64_t floats, const Fn& fn) {
  const int64_t num_stretches = DivideUp(floats, kStretchFloats);
  const auto run = [&](int64_t stretch, int) {
    const int64_t first = stretch * kStretchFloats;
    fn(first, std::min(kStretchFloats, floats - first));
  };
  if (pool_ != nullptr && num_stretches > 1) {
    pool_->Run(num_stretches, run);
  } else {
    for (int64_t stretch = 0; stretch < num_stretches; ++stretch) run(stretch, 0);
  }
}

bool CudaSlotMemory::MoveAtOnce(const float* host, void* to, const void* from, int64_t floats, cudaMemcpyKind kind) {
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, host) != cudaSuccess) cudaGetLastError();
  if (attributes.type != cudaMemoryTypeHost) return false;
  Note(cudaMemcpyAsync(to, from, floats * sizeof(float), kind, copies_.get()), "copy between a slot and the host");
  Note(copies_.Synchronize());
  return true;
}

// From ordinary memory it returns when all lies in the places: the link moves it afterwards, while the next call fills
// others.
void CudaSlotMemory::Write(const float* host, float* to, int64_t floats) {
  const ProfileRange range("copy");
  BeginCopy();
  if (MoveAtOnce(host, to, host, floats, cudaMemcpyHostToDevice)) return;
  for (int64_t done = 0; done < floats;) {
    // Whole places, as far as they go without a turn.
    if (next_place_ == kPlaces) next_place_ = 0;
    const int64_t count = std::min((kPlaces - next_place_) * kPlaceFloats, floats - done);
    const int64_t num_places = DivideUp(count, kPlaceFloats);
    float* const places = Place(next_place_);
    for (int64_t i = 0; i < num_places; ++i) Note(moved_[next_place_ + i].Wait());  // what they held before
    ForEachStretch(count, [&](int64_t first, int64_t size) {
      std::memcpy(places + first, host + done + first, size * sizeof(float));
    });
    Note(cudaMemcpyAsync(to + done, places, count * sizeof(float), cudaMemcpyHostToDevice, copies_.get()),
         "copy into a slot");
    for (int64_t i = 0; i < num_places; ++i) Note(moved_[next_place_ + i].Record(copies_.get()));
    next_place_ += num_places;
    done += count;
  }
  Note(written_.Record(copies_.get()));
  Note(written_.HoldUp(stream_));
}

// The link fills the next places while the threads empty the ones before. (Threads that wait for the link themselves
// stand in each other's way.)
void CudaSlotMemory::Read(const float* from, float* host, int64_t floats) {
  const ProfileRange range("copy");
  BeginCopy();
  if (MoveAtOnce(host, host, from, floats, cudaMemcpyDeviceToHost)) return;
  const int64_t num_pieces = DivideUp(floats, kPlaceFloats);
  const auto size = [&](int64_t piece) { return std::min(kPlaceFloats, floats - piece * kPlaceFloats); };
  const auto queue = [&](int64_t piece) {
    Note(cudaMemcpyAsync(Place(piece % kPlaces), from + piece * kPlaceFloats, size(piece) * sizeof(float),
                         cudaMemcpyDeviceToHost, copies_.get()),
         "copy out of a slot");
    Note(moved_[piece % kPlaces].Record(copies_.get()));
  };
  for (int64_t piece = 0; piece < std::min(num_pieces, kPlaces); ++piece) queue(piece);
  for (int64_t piece = 0; piece < num_pieces; ++piece) {
    Note(moved_[piece % kPlaces].Wait());
    const float* const place = Place(piece % kPlaces);
    float* const to = host + piece * kPlaceFloats;
    ForEachStretch(size(piece), [&](int64_t first, int64_t count) {
      std::memcpy(to + first, place + first, count * sizeof(float));
    });
    if (piece + kPlaces < num_pieces) queue(piece + kPlaces);
  }
}

}  // namespace statehouse
