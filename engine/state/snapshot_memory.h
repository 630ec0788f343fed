// Host memory for snapshots. Where the model's device reaches page-locked memory faster, long snapshots (past the
// switch-over all are of about one size) lie in page-locked blocks, as long as one is free. Blocks are made at the
// start and used again when a snapshot goes: locking one takes longer than a move, and holds up the device's steps.
// What is short, or finds no block free, has ordinary memory, where moves are slower and nothing else differs.
//
//   auto memory = SnapshotMemory::Make({.block_bytes = shape.bytes(), .num_blocks = 16}, locker);
//   SnapshotBuffer buffer = memory->Take(bytes, SnapshotMemory::Contents::kUndefined);
//
// Thread-safety: SnapshotMemory: any thread. A SnapshotBuffer: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/math/aligned_buffer.h"
#include "models/page_locker.h"

namespace statehouse {

class SnapshotMemory;

class SnapshotBuffer {
 public:
  SnapshotBuffer() = default;
  // Ordinary memory, of as many bytes as it has.
  SnapshotBuffer(kernels::AlignedBuffer plain) : buffer_(std::move(plain)) {}  // NOLINT(google-explicit-constructor)
  ~SnapshotBuffer();
  SnapshotBuffer(SnapshotBuffer&& other) noexcept = default;
  SnapshotBuffer& operator=(SnapshotBuffer&& other) noexcept;

  template <typename T>
  T* as() {
    return buffer_.as<T>();
  }
  template <typename T>
  const T* as() const {
    return buffer_.as<T>();
  }
  // What it takes of the host's memory: of a block all of it.
  int64_t bytes() const { return buffer_.size(); }
  bool is_page_locked() const { return home_ != nullptr; }
  bool empty() const { return buffer_.size() == 0; }
  // Keeps the first `bytes`. A block of which this leaves more than a quarter unused goes back, where there is ordinary
  // memory for what is kept.
  void Shrink(int64_t bytes);

 private:
  friend class SnapshotMemory;
  kernels::AlignedBuffer buffer_;
  std::shared_ptr<SnapshotMemory> home_;  // a block's
};

class SnapshotMemory : public std::enable_shared_from_this<SnapshotMemory> {
 public:
  enum class Contents : uint8_t { kZero, kUndefined };
  struct Options {
    int64_t block_bytes = 0;  // of the longest snapshot; >= 1
    int64_t num_blocks = 0;
  };
  struct Totals {
    int64_t locked_bytes = 0;  // of all blocks
    int64_t free_bytes = 0;    // of those that no snapshot uses
    int64_t no_block = 0;      // times that one was to have a block, and none was free
  };

  // How many blocks to make of `asked_bytes` (0: kUsualBlocks, at most an eighth of what is available), where a host
  // has `available_bytes` (nothing: not known). INVALID_ARGUMENT: more than that.
  static absl::StatusOr<int64_t> NumBlocks(int64_t asked_bytes, int64_t block_bytes,
                                           std::optional<int64_t> available_bytes);
  static constexpr int64_t kUsualBlocks = 16;
  // `locker` may be null: there are no blocks then. Where fewer than asked for can be had, why_fewer() says why. Takes
  // a while (a tenth of a second for 256 MB).
  static std::shared_ptr<SnapshotMemory> Make(const Options& options, std::shared_ptr<PageLocker> locker);
  ~SnapshotMemory();

  // Is so much worth a block?
  bool Suits(int64_t bytes) const;
  // A block if Suits() and one is free; else ordinary memory, which is zero whatever `contents` says. Empty: the host
  // has too little. REQUIRES: bytes >= 1.
  SnapshotBuffer Take(int64_t bytes, Contents contents);
  // The same; from ordinary memory if `memory` is null.
  static SnapshotBuffer TakeFrom(SnapshotMemory* memory, int64_t bytes, Contents contents);
  int64_t locked_bytes() const { return num_blocks_ * block_bytes_; }
  const absl::Status& why_fewer() const { return why_fewer_; }
  Totals totals() const;

 private:
  friend class SnapshotBuffer;
  SnapshotMemory(int64_t block_bytes, std::shared_ptr<PageLocker> locker)
      : block_bytes_(block_bytes), locker_(std::move(locker)) {}
  absl::Status AddBlock();
  void GiveBack(kernels::AlignedBuffer block);

  const int64_t block_bytes_;
  const std::shared_ptr<PageLocker> locker_;
  int64_t num_blocks_ = 0;  // this and the next do not change after Make()
  absl::Status why_fewer_;
  mutable std::mutex mutex_;
  std::vector<kernels::AlignedBuffer> free_;
  int64_t no_block_ = 0;
};

}  // namespace statehouse
