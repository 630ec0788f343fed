#include "models/tokenizer/regex.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/tokenizer/regex_syntax.h"

namespace statehouse {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Matches(std::string_view pattern, std::string_view text) {
  const absl::StatusOr<Regex> regex = Regex::Compile(pattern, "p");
  EXPECT_TRUE(regex.ok()) << regex.status();
  std::vector<TextRange> ranges;
  EXPECT_TRUE(regex->FindAll(text, &ranges).ok());
  std::vector<std::string> out;
  for (const TextRange& range : ranges) out.emplace_back(text.substr(range.begin, range.end - range.begin));
  return out;
}

TEST(Regex, LookAheadLeavesTheLastSpaceToTheNextWord) {
  EXPECT_THAT(Matches(R"( ?\p{L}+|\s+(?!\S)|\s+)", "a   b  "), ElementsAre("a", "  ", " b", "  "));
}

TEST(Regex, WhiteSpaceIsUnicodesAndNotPerls) {
  // U+0085, U+00A0, U+2028 and U+3000 are; U+180E and U+200B are not.
  EXPECT_THAT(Matches(R"(\s)", "\xC2\x85|\xC2\xA0|\xE2\x80\xA8|\xE3\x80\x80|\xE1\xA0\x8E|\xE2\x80\x8B"),
              ElementsAre("\xC2\x85", "\xC2\xA0", "\xE2\x80\xA8", "\xE3\x80\x80"));
}

TEST(Regex, LettersOfUnicode16AreLetters) {
  const std::string garay_letter = "\xF0\x90\xB5\x90";  // U+10D50
  EXPECT_THAT(Matches(R"(\p{L})", garay_letter), ElementsAre(garay_letter));
  EXPECT_THAT(Matches(R"(\p{Lu})", garay_letter), ElementsAre(garay_letter));
  EXPECT_THAT(Matches(R"([^\p{L}])", garay_letter), ElementsAre());
  EXPECT_THAT(Matches(R"(\P{L})", garay_letter), ElementsAre());
}

TEST(Regex, EmptyMatches_AreFoundOncePerPlaceAndNotAfterAMatch) {
  EXPECT_THAT(Matches("a*", "baac"), ElementsAre("", "aa", ""));
  EXPECT_THAT(Matches("", "\xC3\xA9z"), ElementsAre("", "", ""));
}

TEST(Regex, CaretAndDollarMeanLines) { EXPECT_THAT(Matches("^b$", "a\nb\nc"), ElementsAre("b")); }

TEST(Regex, Literal_MatchesItsCharactersOnly) {
  const absl::StatusOr<Regex> regex = Regex::Literal("a.b*(\xC3\xA9)", "p");
  ASSERT_TRUE(regex.ok());
  std::vector<TextRange> ranges;
  ASSERT_TRUE(regex->FindAll("axb a.b*(\xC3\xA9)", &ranges).ok());
  ASSERT_EQ(ranges.size(), 1u);
  EXPECT_EQ(ranges[0].begin, 4u);
}

TEST(Regex, ConstructsThatMeanSomethingElse_AreNamed) {
  for (const char* pattern :
       {R"(\h)", R"(\R)", R"(\bfoo)", R"((a)\1)", "[a[b]]", "[a&&b]", "[[:alpha:]]", "a{2}?", "a{1,2}+", "a{,2}",
        "(?m)a", "(?<name>a)", R"(\p{Han})", R"(\p{C})", R"([\P{L}])", R"([\W])", R"(\xff)", "x(?i)y", "(*UCP)"}) {
    const absl::StatusOr<Regex> regex = Regex::Compile(pattern, "file: field");
    EXPECT_EQ(regex.status().code(), absl::StatusCode::kUnimplemented) << pattern << ": " << regex.status();
    EXPECT_THAT(regex.status().message(), HasSubstr("file: field"));
  }
}

TEST(Regex, Mistakes_AreInvalidAndNotACrash) {
  for (const char* pattern : {"(", ")", "[b-a]", "(?<=a*)b", "\xFF"}) {
    EXPECT_EQ(Regex::Compile(pattern, "f").status().code(), absl::StatusCode::kInvalidArgument) << pattern;
  }
  EXPECT_FALSE(Regex::Compile(std::string(100'000, 'a'), "f").ok());
  EXPECT_FALSE(Regex::Compile(std::string(10'000, '(') + std::string(10'000, ')'), "f").ok());
  EXPECT_FALSE(Regex::Compile("*", "f").ok());
}

TEST(Regex, PatternThatExplodes_EndsWithAnError) {
  const absl::StatusOr<Regex> regex = Regex::Compile("(a+a+)+[bc]", "f");
  ASSERT_TRUE(regex.ok());
  std::vector<TextRange> ranges;
  std::string text(61, 'a');
  text.back() = 'd';
  const absl::Status status = regex->FindAll(text, &ranges);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("does not finish"));
}

TEST(Regex, MegabytesOfOneCharacter_AreOneMatch) {
  for (const char c : {' ', 'a', '\n', '.'}) {
    const std::string text(8 << 20, c);
    EXPECT_EQ(
        Matches(R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)", text).size(),
        1u);
  }
}

}  // namespace
}  // namespace statehouse
