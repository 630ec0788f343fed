// Finds stop strings in a text that arrives in pieces.
//
// The match that completes first wins, whatever the pieces; among strings that complete at the same byte, the first of
// the list. Text that may still become a match is held back: at every moment held() is the length of the longest end of
// the text that begins a stop string. Thread-safety: patterns are immutable; one thread at a time for a matcher.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace statehouse {

class StopPatterns {
 public:
  static constexpr int kMaxPatterns = 16;

  // At most kMaxPatterns strings of 1 … 256 bytes.
  explicit StopPatterns(std::vector<std::string> strings);

  int size() const { return static_cast<int>(strings_.size()); }
  std::string_view pattern(int idx) const { return strings_[idx]; }
  // Length of the longest proper prefix of pattern `idx` that ends its first `length` bytes. length in [1, size].
  int Fallback(int idx, int length) const { return fallbacks_[idx][length]; }

 private:
  std::vector<std::string> strings_;
  std::vector<std::vector<uint16_t>> fallbacks_;
};

class StopMatcher {
 public:
  struct Match {
    int pattern;    // index into the list
    int64_t begin;  // bytes of text before it
    int64_t end;    // bytes of text including it
  };

  // `patterns` must outlive the matcher.
  explicit StopMatcher(const StopPatterns* patterns) : patterns_(patterns) {}

  // Takes more text. Returns the first match that completes in it, unless `may_match` is false; nothing may be fed
  // after.
  std::optional<Match> Feed(std::string_view text, bool may_match);
  int64_t total() const { return total_; }  // bytes fed
  int64_t held() const;

 private:
  const StopPatterns* patterns_;
  std::array<uint16_t, StopPatterns::kMaxPatterns> matched_{};  // per pattern: bytes of it that end the text
  int64_t total_ = 0;
};

}  // namespace statehouse
