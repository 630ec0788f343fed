#include "engine/state/snapshot_memory.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/state/shared_work.h"

namespace statehouse {
namespace {

// A block is used by what fills at least so much of it, in quarters.
constexpr int64_t kLeastQuarters = 3;

std::span<std::byte> BytesOf(kernels::AlignedBuffer& buffer) {
  return {buffer.data(), static_cast<size_t>(buffer.size())};
}

void Clear(std::span<std::byte> bytes) {
  constexpr size_t kPiece = size_t{1} << 20;
  const size_t num_pieces = (bytes.size() + kPiece - 1) / kPiece;
  std::atomic<size_t> next{0};
  ShareWork(WorthwhileThreads(static_cast<int64_t>(bytes.size()), static_cast<int64_t>(num_pieces)), [&] {
    for (size_t piece = next++; piece < num_pieces; piece = next++) {
      const std::span<std::byte> mine = bytes.subspan(piece * kPiece);
      std::memset(mine.data(), 0, std::min(mine.size(), kPiece));
    }
  });
}

}  // namespace

SnapshotBuffer::~SnapshotBuffer() {
  if (home_ != nullptr && buffer_.size() > 0) home_->GiveBack(std::move(buffer_));
}

SnapshotBuffer& SnapshotBuffer::operator=(SnapshotBuffer&& other) noexcept {
  if (this == &other) return *this;
  if (home_ != nullptr && buffer_.size() > 0) home_->GiveBack(std::move(buffer_));
  buffer_ = std::move(other.buffer_);
  home_ = std::move(other.home_);
  return *this;
}

void SnapshotBuffer::Shrink(int64_t bytes) {
  if (home_ == nullptr) {
    buffer_.Shrink(bytes);
    return;
  }
  if (home_->Suits(bytes)) return;
  kernels::AlignedBuffer plain;
  if (!plain.Allocate(bytes)) return;
  if (bytes > 0) std::memcpy(plain.data(), buffer_.data(), static_cast<size_t>(bytes));
  *this = SnapshotBuffer(std::move(plain));
}

absl::StatusOr<int64_t> SnapshotMemory::NumBlocks(int64_t asked_bytes, int64_t block_bytes,
                                                  std::optional<int64_t> available_bytes) {
  if (asked_bytes == 0) {
    return available_bytes.has_value() ? std::min(kUsualBlocks, *available_bytes / 8 / block_bytes) : kUsualBlocks;
  }
  if (available_bytes.has_value() && asked_bytes > *available_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(asked_bytes, " bytes; expected at most the ", *available_bytes, " that this host has left"));
  }
  return asked_bytes / block_bytes;
}

std::shared_ptr<SnapshotMemory> SnapshotMemory::Make(const Options& options, std::shared_ptr<PageLocker> locker) {
  std::shared_ptr<SnapshotMemory> made(new SnapshotMemory(options.block_bytes, std::move(locker)));
  while (made->locker_ != nullptr && made->num_blocks_ < options.num_blocks && made->why_fewer_.ok()) {
    made->why_fewer_ = made->AddBlock();
  }
  return made;
}

SnapshotMemory::~SnapshotMemory() {
  for (kernels::AlignedBuffer& block : free_) locker_->Unlock(BytesOf(block));
}

absl::Status SnapshotMemory::AddBlock() {
  kernels::AlignedBuffer block;
  if (!block.Allocate(block_bytes_)) return absl::ResourceExhaustedError("the host has too little memory");
  if (absl::Status status = locker_->Lock(BytesOf(block)); !status.ok()) return status;
  ++num_blocks_;
  free_.push_back(std::move(block));
  return absl::OkStatus();
}

bool SnapshotMemory::Suits(int64_t bytes) const {
  return num_blocks_ > 0 && bytes <= block_bytes_ && bytes >= block_bytes_ / 4 * kLeastQuarters;
}

SnapshotBuffer SnapshotMemory::Take(int64_t bytes, Contents contents) {
  SnapshotBuffer taken;
  if (Suits(bytes)) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) {
      ++no_block_;
    } else {
      taken.buffer_ = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (!taken.empty()) {
    taken.home_ = shared_from_this();
    if (contents == Contents::kZero) Clear(BytesOf(taken.buffer_));
    return taken;
  }
  return TakeFrom(nullptr, bytes, contents);
}

SnapshotBuffer SnapshotMemory::TakeFrom(SnapshotMemory* memory, int64_t bytes, Contents contents) {
  if (memory != nullptr) return memory->Take(bytes, contents);
  kernels::AlignedBuffer plain;
  if (!plain.Allocate(bytes)) return {};
  return SnapshotBuffer(std::move(plain));
}

void SnapshotMemory::GiveBack(kernels::AlignedBuffer block) {
  const std::lock_guard<std::mutex> lock(mutex_);
  free_.push_back(std::move(block));
}

SnapshotMemory::Totals SnapshotMemory::totals() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {.locked_bytes = locked_bytes(),
          .free_bytes = static_cast<int64_t>(free_.size()) * block_bytes_,
          .no_block = no_block_};
}

}  // namespace statehouse
