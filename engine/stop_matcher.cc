#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace statehouse {

StopPatterns::StopPatterns(std::vector<std::string> strings) : strings_(std::move(strings)) {
  for (const std::string& pattern : strings_) {
    // The failure function of Knuth, Morris and Pratt.
    std::vector<uint16_t> fallback(pattern.size() + 1, 0);
    uint16_t length = 0;
    for (size_t idx = 1; idx < pattern.size(); ++idx) {
      while (length > 0 && pattern[idx] != pattern[length]) length = fallback[length];
      if (pattern[idx] == pattern[length]) ++length;
      fallback[idx + 1] = length;
    }
    fallbacks_.push_back(std::move(fallback));
  }
}

std::optional<StopMatcher::Match> StopMatcher::Feed(std::string_view text, bool may_match) {
  const int num_patterns = patterns_->size();
  if (num_patterns == 0) {
    total_ += static_cast<int64_t>(text.size());
    return std::nullopt;
  }
  for (const char byte : text) {
    ++total_;
    std::optional<Match> match;
    for (int idx = 0; idx < num_patterns; ++idx) {
      const std::string_view pattern = patterns_->pattern(idx);
      int length = matched_[idx];
      while (length > 0 && byte != pattern[length]) length = patterns_->Fallback(idx, length);
      if (byte == pattern[length]) ++length;
      if (length == static_cast<int>(pattern.size())) {
        if (may_match && !match.has_value()) match = Match{idx, total_ - length, total_};
        length = patterns_->Fallback(idx, length);
      }
      matched_[idx] = static_cast<uint16_t>(length);
    }
    if (match.has_value()) return match;
  }
  return std::nullopt;
}

int64_t StopMatcher::held() const { return *std::max_element(matched_.begin(), matched_.end()); }

}  // namespace statehouse
