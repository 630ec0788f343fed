// How often each token was generated, and whether the prompt holds it: what the penalties read. One array per slot, a
// view of memory that the engine owns. Thread-safety: the engine thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace statehouse {

class TokenCounts {
 public:
  TokenCounts() = default;
  explicit TokenCounts(std::span<uint32_t> counts) : counts_(counts) {}  // [vocab], zero

  void Clear() { std::fill(counts_.begin(), counts_.end(), 0); }
  void AddPrompt(std::span<const int32_t> prompt) {
    for (const int32_t token : prompt) counts_[token] |= kInPrompt;
  }
  // Saturates after 2^31 - 1 occurrences.
  void AddOutput(int32_t token) {
    if ((counts_[token] & ~kInPrompt) != ~kInPrompt) ++counts_[token];
  }
  void CopyFrom(const TokenCounts& other) { std::copy(other.counts_.begin(), other.counts_.end(), counts_.begin()); }

  uint32_t generated(int32_t token) const { return counts_[token] & ~kInPrompt; }
  bool seen(int32_t token) const { return counts_[token] != 0; }

 private:
  static constexpr uint32_t kInPrompt = uint32_t{1} << 31;
  std::span<uint32_t> counts_;
};

}  // namespace statehouse
