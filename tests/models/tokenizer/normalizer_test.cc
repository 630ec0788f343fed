#include "models/tokenizer/normalizer.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "gtest/gtest.h"

namespace statehouse {
namespace {

std::string Nfc(std::string_view text) { return Normalizer::Nfc().Normalize(text); }

TEST(Normalizer, LettersAndMarks_Compose) {
  EXPECT_EQ(Nfc("e\xCC\x81"), "\xC3\xA9");                                 // e + acute
  EXPECT_EQ(Nfc("\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB"), "\xED\x95\x9C");  // three jamo, one syllable
  EXPECT_EQ(Nfc("\xE2\x84\xAB"), "\xC3\x85");                              // the sign Å is the letter
  EXPECT_EQ(Nfc("a\xCC\x88\xCC\xA3"), "\xE1\xBA\xA1\xCC\x88");             // marks are ordered first
  EXPECT_EQ(Nfc("\xE0\xA5\x98"), "\xE0\xA4\x95\xE0\xA4\xBC");              // an excluded composition comes apart
  EXPECT_EQ(Nfc("plain ASCII, \xC3\xA9"), "plain ASCII, \xC3\xA9");
}

TEST(Normalizer, MarksNewerThanTheTablesOfThePackage_StayWhereTheyAre) {
  // U+1ACE has class 230 since Unicode 14 and would move before U+0345 (240).
  EXPECT_EQ(Nfc("e\xCD\x85\xE1\xAB\x8E"), "e\xCD\x85\xE1\xAB\x8E");
}

TEST(Normalizer, BytesThatAreNotUtf8_StayAndSeparate) {
  EXPECT_EQ(Nfc("e\xFF\xCC\x81"), "e\xFF\xCC\x81");
  EXPECT_EQ(Nfc("\xCC"), "\xCC");
}

TEST(Normalizer, None_ChangesNothing) { EXPECT_EQ(Normalizer().Normalize("e\xCC\x81"), "e\xCC\x81"); }

// Two hundred thousand marks in the worst order: quadratic sorting takes minutes.
TEST(Normalizer, LongRunOfMarks_IsOrderedInTime) {
  std::string text = "a";
  for (int i = 0; i < 400'000; ++i) text += i % 2 == 0 ? "\xCC\x81" : "\xCC\xA3";  // classes 230 and 220
  const auto start = std::chrono::steady_clock::now();
  const std::string normalized = Nfc(text);
  EXPECT_TRUE(normalized.starts_with("\xE1\xBA\xA1\xCC\xA3"));  // a with the first dot below, then the other dots
  EXPECT_EQ(Nfc(normalized), normalized);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

TEST(Normalizer, OtherTypes_AreRefusedByName) {
  const auto code = [](const char* text) {
    return Normalizer::FromJson(nlohmann::json::parse(text), "f").status().code();
  };
  EXPECT_EQ(code("null"), absl::StatusCode::kOk);
  EXPECT_EQ(code(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}]})"), absl::StatusCode::kOk);
  EXPECT_EQ(code(R"({"type": "NFKC"})"), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(code(R"({"type": "Sequence", "normalizers": [{"type": "Lowercase"}]})"), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(code(R"({"type": "Sequence"})"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(R"({"type": 3})"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("[]"), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace statehouse
