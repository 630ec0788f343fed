#include "models/tokenizer/detokenizer.h"

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "tests/models/tokenizer/fake_vocabulary.h"

namespace statehouse {
namespace {

using Token = FakeVocabulary::Token;

constexpr char kBad[] = "\xEF\xBF\xBD";

std::string Repeated(std::string_view text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

// 256 tokens, one per byte, then one control token "<|x|>" (id 256) and two words that a dummy prefix starts (257,
// 258).
FakeVocabulary Bytes(DecodeRules rules = {}) {
  std::vector<Token> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back({std::string(1, static_cast<char>(byte))});
  tokens.push_back({"<|x|>", /*special=*/true});
  tokens.push_back({" ", false, /*starts_with_prefix=*/true});
  tokens.push_back({" word", false, /*starts_with_prefix=*/true});
  return FakeVocabulary(std::move(tokens), rules);
}

std::vector<int32_t> Ids(std::string_view bytes) {
  std::vector<int32_t> ids;
  for (const char byte : bytes) ids.push_back(static_cast<unsigned char>(byte));
  return ids;
}

std::string DecodeAll(const Vocabulary& vocabulary, const std::vector<int32_t>& ids, bool show_special = false) {
  Detokenizer detokenizer(&vocabulary, show_special);
  std::string text;
  for (const int32_t id : ids) detokenizer.Append(id, &text);
  detokenizer.Flush(&text);
  return text;
}

// Decodes the first character of `bytes` by arithmetic alone: its length, or 0 if `bytes` does not start with a
// well-formed one.
size_t WellFormedLength(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  if (at(0) < 0x80) return 1;
  const size_t length = at(0) >= 0xF0 ? 4 : at(0) >= 0xE0 ? 3 : 2;
  if (at(0) < 0xC0 || at(0) > 0xF7 || bytes.size() < length) return 0;
  uint32_t code = at(0) & (0xFFu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (at(i) & 0x3Fu);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return code < kSmallest[length] || code > 0x10FFFF || surrogate ? 0 : length;
}

// Whether some bytes could be added to `bytes` (1 to 3 of them) so that a well-formed character results.
bool IsPrefixOfCharacter(const std::string& bytes) {
  for (int second = 0x80; second < 0xC0; ++second) {
    std::string longer = bytes;
    if (longer.size() == 1) longer += static_cast<char>(second);
    for (std::string tail; tail.size() <= 2; tail += '\x80') {
      if (longer.size() + tail.size() > bytes.size() && WellFormedLength(longer + tail) == longer.size() + tail.size())
        return true;
    }
    if (bytes.size() > 1) break;
  }
  return false;
}

// The slow twin: looks at the whole text at once.
std::string Lossy(std::string_view bytes, bool per_byte) {
  std::string text;
  while (!bytes.empty()) {
    size_t length = WellFormedLength(bytes);
    if (length > 0) {
      text += bytes.substr(0, length);
    } else {
      text += kBad;
      length = 1;
      while (!per_byte && length < bytes.size() && IsPrefixOfCharacter(std::string(bytes.substr(0, length + 1))))
        ++length;
    }
    bytes.remove_prefix(length);
  }
  return text;
}

TEST(Detokenizer, CharacterSplitOverTokens_ComesOutWhole) {
  const FakeVocabulary vocabulary = Bytes();
  Detokenizer detokenizer(&vocabulary);
  std::string text;
  for (const int32_t id : {0xF0, 0x9F, 0x98}) {
    detokenizer.Append(id, &text);
    EXPECT_EQ(text, "");
  }
  detokenizer.Append(0x80, &text);
  EXPECT_EQ(text, "\xF0\x9F\x98\x80");
}

TEST(Detokenizer, TruncatedCharacterAtTheEnd_BecomesOneReplacement) {
  EXPECT_EQ(DecodeAll(Bytes(), Ids("a\xF0\x9F\x98")), std::string("a") + kBad);
}

TEST(Detokenizer, InvalidParts_AreReplacedAsUnicodeTable3_8Says) {
  const std::string b = kBad;
  EXPECT_EQ(DecodeAll(Bytes(), Ids("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41")), Repeated(b, 8) + "A");
  EXPECT_EQ(DecodeAll(Bytes(), Ids("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41")), Repeated(b, 8) + "A");
  EXPECT_EQ(DecodeAll(Bytes(), Ids("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42")),
            Repeated(b, 5) + "A" + Repeated(b, 2) + "B");
  EXPECT_EQ(DecodeAll(Bytes(), Ids("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41")), Repeated(b, 4) + "A");
}

TEST(Detokenizer, PerByteRule_ReplacesEveryByte) {
  DecodeRules rules;
  rules.invalid = DecodeRules::Invalid::kPerByte;
  const std::string b = kBad;
  EXPECT_EQ(DecodeAll(Bytes(rules), Ids("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41")), Repeated(b, 8) + "A");
}

TEST(Detokenizer, SpecialTokens_AreHiddenUnlessAskedFor) {
  EXPECT_EQ(DecodeAll(Bytes(), {'a', 256, 'b'}), "ab");
  EXPECT_EQ(DecodeAll(Bytes(), {'a', 256, 'b'}, /*show_special=*/true), "a<|x|>b");
}

TEST(Detokenizer, SpecialTokenInsideACharacter_EndsItOnlyWhereTheRuleSaysSo) {
  EXPECT_EQ(DecodeAll(Bytes(), {0xC3, 256, 0xA9}), "\xC3\xA9");
  DecodeRules rules;
  rules.special_ends_character = true;
  EXPECT_EQ(DecodeAll(Bytes(rules), {0xC3, 256, 0xA9}), std::string(kBad) + kBad);
}

TEST(Detokenizer, DummyPrefix_IsLeftOutOfTheFirstTokenOnly) {
  EXPECT_EQ(DecodeAll(Bytes(), {258, 258}), "word word");
  EXPECT_EQ(DecodeAll(Bytes(), {256, 258}), "word");
  EXPECT_EQ(DecodeAll(Bytes(), {257, 257, 258}), "  word");
  EXPECT_EQ(DecodeAll(Bytes(), {' ', 258}), "  word");  // a space that is no prefix stays
  DecodeRules rules;
  rules.start = DecodeRules::Start::kUntilText;
  EXPECT_EQ(DecodeAll(Bytes(rules), {257, 257, 258, 257}), "word ");
}

TEST(Detokenizer, IdsOutOfRange_AddNothing) { EXPECT_EQ(DecodeAll(Bytes(), {-1, 'a', 1 << 30, 'b', INT32_MIN}), "ab"); }

TEST(Detokenizer, Reset_ForgetsHeldBackBytesAndTheStart) {
  const FakeVocabulary vocabulary = Bytes();
  Detokenizer detokenizer(&vocabulary);
  std::string text;
  detokenizer.Append('a', &text);
  detokenizer.Append(0xE2, &text);
  detokenizer.Reset();
  detokenizer.Append(258, &text);
  EXPECT_EQ(text, "aword");
}

class RandomBytes : public testing::TestWithParam<bool> {};

TEST_P(RandomBytes, StreamEqualsWholeAndNeverShowsHalfACharacter) {
  const bool per_byte = GetParam();
  DecodeRules rules;
  rules.invalid = per_byte ? DecodeRules::Invalid::kPerByte : DecodeRules::Invalid::kPerPart;
  std::mt19937 random(20261123);
  constexpr std::string_view kInteresting =
      "aA\x7F\x80\x8F\x90\x9F\xA0\xBF\xC0\xC1\xC2\xDF\xE0\xE1\xEC\xED\xEE\xEF\xF0\xF1\xF3\xF4\xF5\xFF";
  for (int round = 0; round < 20000; ++round) {
    // Tokens of one to four bytes, so that characters begin and end inside tokens.
    std::vector<Token> tokens(1 + random() % 12);
    std::string whole;
    for (Token& token : tokens) {
      for (uint32_t i = 1 + random() % 4; i > 0; --i) token.bytes += kInteresting[random() % kInteresting.size()];
      whole += token.bytes;
    }
    const FakeVocabulary vocabulary(tokens, rules);
    Detokenizer detokenizer(&vocabulary);
    std::string text;
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      const size_t before = text.size();
      detokenizer.Append(id, &text);
      const std::string piece = text.substr(before);
      ASSERT_EQ(Lossy(piece, per_byte), piece) << "an incomplete character came out in round " << round;
    }
    detokenizer.Flush(&text);
    ASSERT_EQ(text, Lossy(whole, per_byte)) << "round " << round;
  }
}

INSTANTIATE_TEST_SUITE_P(Rule, RandomBytes, testing::Bool(),
                         [](const auto& info) { return info.param ? "PerByte" : "PerPart"; });

}  // namespace
}  // namespace statehouse
