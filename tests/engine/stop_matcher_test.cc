#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace statehouse {
namespace {

// The whole text searched after the fact: the match that completes first, the first of the list among equals.
std::optional<StopMatcher::Match> NaiveSearch(const std::vector<std::string>& strings, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    for (size_t idx = 0; idx < strings.size(); ++idx) {
      const std::string& pattern = strings[idx];
      if (pattern.size() <= end && text.compare(end - pattern.size(), pattern.size(), pattern) == 0) {
        return StopMatcher::Match{static_cast<int>(idx), static_cast<int64_t>(end - pattern.size()),
                                  static_cast<int64_t>(end)};
      }
    }
  }
  return std::nullopt;
}

// The longest end of `text` that begins one of the strings, but is not all of it.
int64_t NaiveHeld(const std::vector<std::string>& strings, const std::string& text) {
  int64_t held = 0;
  for (const std::string& pattern : strings) {
    for (size_t length = 1; length < pattern.size() && length <= text.size(); ++length) {
      if (text.compare(text.size() - length, length, pattern, 0, length) == 0) held = std::max<int64_t>(held, length);
    }
  }
  return held;
}

std::string RandomText(std::mt19937* random, size_t size, int letters) {
  std::string text(size, ' ');
  for (char& letter : text) letter = static_cast<char>('a' + (*random)() % letters);
  return text;
}

TEST(StopMatcher, RandomPieces_FindWhatASearchOfTheWholeFinds) {
  std::mt19937 random(2);
  int found = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    std::vector<std::string> strings(1 + random() % 4);
    for (std::string& pattern : strings) pattern = RandomText(&random, 1 + random() % 6, 2);
    const std::string text = RandomText(&random, random() % 40, 2 + trial % 2);
    const std::optional<StopMatcher::Match> expected = NaiveSearch(strings, text);
    const StopPatterns patterns(strings);
    StopMatcher matcher(&patterns);
    std::optional<StopMatcher::Match> match;
    for (size_t begin = 0; begin < text.size() && !match.has_value();) {
      const size_t size = std::min<size_t>(text.size() - begin, random() % 5);
      match = matcher.Feed(std::string_view(text).substr(begin, size), true);
      begin += size;
      if (!match.has_value()) {
        ASSERT_EQ(matcher.total(), static_cast<int64_t>(begin));
        ASSERT_EQ(matcher.held(), NaiveHeld(strings, text.substr(0, begin)));
      }
    }
    ASSERT_EQ(match.has_value(), expected.has_value());
    if (!match.has_value()) continue;
    ++found;
    EXPECT_EQ(match->pattern, expected->pattern);
    EXPECT_EQ(match->begin, expected->begin);
    EXPECT_EQ(match->end, expected->end);
  }
  EXPECT_GT(found, 1000);
}

TEST(StopMatcher, MatchThatDoesNotCount_IsPassedOver) {
  const StopPatterns patterns({"abab"});
  StopMatcher matcher(&patterns);
  EXPECT_FALSE(matcher.Feed("xabab", false).has_value());
  EXPECT_EQ(matcher.held(), 2);  // its end may begin another
  const std::optional<StopMatcher::Match> match = matcher.Feed("ab", true);
  ASSERT_TRUE(match.has_value());
  EXPECT_EQ(match->begin, 3);
  EXPECT_EQ(match->end, 7);
}

TEST(StopMatcher, NoStrings_HoldNothing) {
  const StopPatterns patterns({});
  StopMatcher matcher(&patterns);
  EXPECT_FALSE(matcher.Feed("anything", true).has_value());
  EXPECT_EQ(matcher.total(), 8);
  EXPECT_EQ(matcher.held(), 0);
}

}  // namespace
}  // namespace statehouse
