// What writer and reader of docs/snapshot-format.md share. Private to engine/state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace statehouse::snapshot_format {

inline constexpr std::string_view kMagic = "SHSNAP01";
inline constexpr std::string_view kEndMagic = "SHSNAPND";
inline constexpr int64_t kTrailerBytes = 24;
inline constexpr int64_t kAlignment = 64;
inline constexpr int kExactVersion = 1;    // float32, not compressed: what every reader knows
inline constexpr int kEncodedVersion = 2;  // anything else
inline constexpr std::string_view kZstd = "zstd";
inline constexpr std::string_view kTokens = "tokens";  // the one section that is never compressed

// Numbers that are moved at a time, so that they stay in a core's own cache while they are read, checked and
// rearranged.
inline constexpr int64_t kPieceFloats = 64 * 1024;

uint64_t Checksum(std::span<const std::byte> bytes);  // XXH3-64

// The same of bytes that come one after another. Thread-safety: one thread.
class RunningChecksum {
 public:
  RunningChecksum();
  ~RunningChecksum();
  RunningChecksum(const RunningChecksum&) = delete;
  RunningChecksum& operator=(const RunningChecksum&) = delete;
  void Restart();
  void Add(std::span<const std::byte> bytes);
  uint64_t value() const;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace statehouse::snapshot_format
