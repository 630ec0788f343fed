#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/tokenizer/detokenizer.h"
#include "models/tokenizer/sentencepiece_library.h"
#include "models/tokenizer/sentencepiece_model.h"
#include "models/tokenizer/tokenizer.h"
#include "tests/models/tokenizer/checkpoint_dir.h"

namespace statehouse {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using Writer = SentencePieceWriter;

constexpr EncodeOptions kPlain = {.add_special_tokens = false, .parse_special_tokens = false};
constexpr EncodeOptions kParse = {.add_special_tokens = false, .parse_special_tokens = true};
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// Ids after the usual 259: 259 "▁", 260 "a", 261 "b", 262 "ab", 263 "▁ab", 264 "<|end|>", 265 "<think>".
Writer Small() {
  Writer writer;
  writer.Usual()
      .Piece("\xE2\x96\x81", -1, Writer::kNormal)
      .Piece("a", -2, Writer::kNormal)
      .Piece("b", -3, Writer::kNormal);
  writer.Piece("ab", -4, Writer::kNormal)
      .Piece(
          "\xE2\x96\x81"
          "ab",
          -5, Writer::kNormal);
  return writer.Piece("<|end|>", 0, Writer::kControl).Piece("<think>", 0, Writer::kUserDefined);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& model, const json& config = json::object()) {
  const CheckpointDir dir;
  dir.Write("tokenizer.model", std::string_view(model));
  dir.Write("tokenizer_config.json", config);
  return Tokenizer::Load(dir.path());
}

std::unique_ptr<Tokenizer> Loaded(const Writer& writer, const json& config = json::object()) {
  auto tokenizer = Load(writer.Model(), config);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<int32_t> Encode(const Tokenizer& tokenizer, std::string_view text, const EncodeOptions& options = kPlain) {
  std::vector<int32_t> ids;
  const absl::Status status = tokenizer.Encode(text, options, &ids);
  EXPECT_TRUE(status.ok()) << status;
  return ids;
}

TEST(SentencePieceTokenizer, TextBecomesPiecesAndBytes) {
  const auto tokenizer = Loaded(Small());
  EXPECT_EQ(tokenizer->kind(), "sentencepiece");
  EXPECT_EQ(tokenizer->size(), 266);
  EXPECT_THAT(Encode(*tokenizer, "ab ab"), ElementsAre(262, 263));
  EXPECT_THAT(Encode(*tokenizer, "a\n"), ElementsAre(260, 3 + '\n'));
  EXPECT_THAT(Encode(*tokenizer, "<think>a"), ElementsAre(265, 260));
  EXPECT_EQ(tokenizer->TokenBytes(263), " ab");
  EXPECT_EQ(tokenizer->TokenBytes(3 + 0xE4), "\xE4");
  EXPECT_EQ(tokenizer->TokenBytes(0), " \xE2\x81\x87 ");  // <unk>, as the library shows it
  EXPECT_EQ(tokenizer->TokenBytes(264), "");
  EXPECT_EQ(tokenizer->TokenName(264), "<|end|>");
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
}

TEST(SentencePieceTokenizer, DummyPrefix_IsPutBeforeTheTextOnlyAndTakenOff) {
  const auto tokenizer = Loaded(Small().DummyPrefix(true));
  EXPECT_THAT(Encode(*tokenizer, "ab"), ElementsAre(263));
  EXPECT_THAT(Encode(*tokenizer, "ab<|end|>ab", kParse), ElementsAre(263, 264, 262));
  EXPECT_THAT(Encode(*tokenizer, "<|end|>ab", kParse), ElementsAre(264, 262));
  const std::vector<int32_t> ids = {263, 263};
  EXPECT_EQ(tokenizer->Decode(ids), "ab ab");
}

TEST(SentencePieceTokenizer, ControlTokensInText_AreReadOnlyWhereAsked) {
  const auto tokenizer = Loaded(Small());
  EXPECT_THAT(Encode(*tokenizer, "ab<|end|>", kParse), ElementsAre(262, 264));
  EXPECT_THAT(Encode(*tokenizer, "ab<|end|>"), testing::Not(testing::Contains(264)));
  EXPECT_EQ(tokenizer->FindSpecial("<|end|>"), 264);
  EXPECT_EQ(tokenizer->FindSpecial("<think>"), 265);
  EXPECT_EQ(tokenizer->FindSpecial("ab"), std::nullopt);
}

TEST(SentencePieceTokenizer, ConfigDecidesWhetherBosComesFirst) {
  EXPECT_THAT(Encode(*Loaded(Small()), "ab", {}), ElementsAre(262));
  EXPECT_THAT(Encode(*Loaded(Small(), {{"tokenizer_class", "LlamaTokenizer"}}), "ab", {}), ElementsAre(1, 262));
  EXPECT_THAT(
      Encode(*Loaded(Small(), {{"add_bos_token", true}, {"bos_token", "<|end|>"}, {"add_eos_token", true}}), "ab", {}),
      ElementsAre(264, 262, 2));
  EXPECT_THAT(Load(Small().Model(), {{"add_bos_token", true}, {"bos_token", "absent"}}).status().message(),
              HasSubstr("add_bos_token"));
}

TEST(SentencePieceTokenizer, PieceThatAFileCallsSpecial_CannotBeForged) {
  const auto tokenizer = Loaded(Small(), {{"additional_special_tokens", {"<think>"}}});
  EXPECT_TRUE(tokenizer->IsSpecial(265));
  std::vector<int32_t> ids = {7};
  const absl::Status status = tokenizer->Encode("a<think>", kPlain, &ids);
  EXPECT_EQ(status.code(), kInvalid);
  EXPECT_THAT(status.message(), HasSubstr("<think>"));
  EXPECT_THAT(ids, ElementsAre(7));
  EXPECT_THAT(Encode(*tokenizer, "a<think>", kParse), ElementsAre(260, 265));
}

TEST(SentencePieceTokenizer, AddedTokensOfTheFilesBeside_FollowTheModelsPieces) {
  const json config = {{"added_tokens_decoder",
                        {{"266", {{"content", "<|im_start|>"}, {"special", true}}}, {"270", {{"content", "<tool>"}}}}}};
  const auto tokenizer = Loaded(Small(), config);
  EXPECT_EQ(tokenizer->size(), 271);
  EXPECT_THAT(Encode(*tokenizer, "<|im_start|>a<tool>", kParse), ElementsAre(266, 260, 270));
  EXPECT_THAT(Encode(*tokenizer, "<|im_start|>"), testing::Not(testing::Contains(266)));
  const json wrong = {{"added_tokens_decoder", {{"260", {{"content", "<|im_start|>"}}}}}};
  EXPECT_THAT(Load(Small().Model(), wrong).status().message(), HasSubstr("id 260"));
}

TEST(SentencePieceTokenizer, TextThatIsNotUtf8_IsRefusedWithItsPlace) {
  const auto tokenizer = Loaded(Small());
  std::vector<int32_t> ids;
  const absl::Status status = tokenizer->Encode("ab\xC3(", kPlain, &ids);
  EXPECT_EQ(status.code(), kInvalid);
  EXPECT_THAT(status.message(), HasSubstr("byte 2"));
  EXPECT_TRUE(ids.empty());
}

TEST(SentencePieceTokenizer, TextThatWouldTakeGigabytes_IsRefused) {
  const auto tokenizer = Loaded(Small());
  std::vector<int32_t> ids;
  const absl::Status status = tokenizer->Encode(std::string((8 << 20) + 1, 'a'), kPlain, &ids);
  EXPECT_EQ(status.code(), kInvalid);
  EXPECT_THAT(status.message(), HasSubstr("token ids"));
}

TEST(SentencePieceTokenizer, RandomIds_DecodeAsTheLibraryDecodes) {
  for (const bool prefix : {false, true}) {
    for (const bool extra : {false, true}) {
      const Writer writer = Small().DummyPrefix(prefix).RemoveExtraSpaces(extra);
      const auto tokenizer = Loaded(writer);
      std::string error;
      const auto library = SentencePieceLibrary::Load(writer.Model(), &error);
      ASSERT_NE(library, nullptr) << error;
      std::mt19937 random(3);
      for (int round = 0; round < 5000; ++round) {
        std::vector<int32_t> ids(random() % 12);
        for (int32_t& id : ids)
          id = random() % 3 == 0 ? static_cast<int32_t>(259 + random() % 7) : static_cast<int32_t>(random() % 266);
        std::string expected;
        ASSERT_TRUE(library->Decode({ids.begin(), ids.end()}, &expected, &error)) << error;
        ASSERT_EQ(tokenizer->Decode(ids), expected) << testing::PrintToString(ids);
      }
    }
  }
}

TEST(SentencePieceTokenizer, Fingerprint_ChangesWithModelAndSettings) {
  const uint64_t usual = Loaded(Small())->fingerprint();
  EXPECT_EQ(Loaded(Small())->fingerprint(), usual);
  EXPECT_NE(Loaded(Small().DummyPrefix(true))->fingerprint(), usual);
  EXPECT_NE(Loaded(Small(), {{"add_bos_token", true}})->fingerprint(), usual);
  EXPECT_NE(Loaded(Small(), {{"additional_special_tokens", {"<think>"}}})->fingerprint(), usual);
}

// A replacement table: trie of one unit per state, then the replacements. The library follows its offsets unchecked.
std::string CharsMap(const std::vector<uint32_t>& units, std::string_view replacements) {
  const uint32_t size = static_cast<uint32_t>(units.size() * sizeof(uint32_t));
  std::string map(reinterpret_cast<const char*>(&size), sizeof(size));
  map.append(reinterpret_cast<const char*>(units.data()), size);
  return map.append(replacements);
}

TEST(SentencePieceTokenizer, CharsMapThatPointsOutOfItself_IsRefused) {
  std::vector<uint32_t> units(256, 0x80000000);
  units[0] = 0;
  EXPECT_TRUE(Load(Small().CharsMap(CharsMap(units, std::string_view("x\0", 2))).Model()).ok());
  units[0] = 1000u << 10;  // offset past the end
  EXPECT_THAT(Load(Small().CharsMap(CharsMap(units, std::string_view("x\0", 2))).Model()).status().message(),
              HasSubstr("precompiled_charsmap"));
  std::vector<uint32_t> leaf(256, 0x80000000 | 77);  // a value past the end of the replacements
  leaf[0] = 1u << 8 | 2u << 10;
  EXPECT_EQ(Load(Small().CharsMap(CharsMap(leaf, std::string_view("x\0", 2))).Model()).status().code(), kInvalid);
  EXPECT_EQ(
      Load(Small().CharsMap(CharsMap(std::vector<uint32_t>(256, 0x80000000), "unterminated")).Model()).status().code(),
      kInvalid);
  EXPECT_EQ(Load(Small().CharsMap("abc").Model()).status().code(), kInvalid);
  EXPECT_EQ(Load(Small()
                     .CharsMap("\xFF\xFF\xFF\xFF"
                               "abcdefgh")
                     .Model())
                .status()
                .code(),
            kInvalid);
}

TEST(SentencePieceTokenizer, DamagedModels_AreRefusedByName) {
  const auto message = [](const std::string& model) {
    const absl::Status status = Load(model).status();
    EXPECT_EQ(status.code(), kInvalid) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(message(""), HasSubstr("no pieces"));
  EXPECT_THAT(message("not a model"), HasSubstr("tokenizer.model"));
  EXPECT_THAT(message(Small().Piece("", 0, Writer::kNormal).Model()), HasSubstr("pieces[266]"));
  EXPECT_THAT(message(Small().Piece("\xFF", 0, Writer::kNormal).Model()), HasSubstr("pieces[266]"));
  EXPECT_THAT(message(Small().Piece(std::string_view("a\0b", 3), 0, Writer::kNormal).Model()),
              HasSubstr("pieces[266]"));
  EXPECT_THAT(message(Small().Piece("x", std::numeric_limits<float>::quiet_NaN(), Writer::kNormal).Model()),
              HasSubstr("score"));
  EXPECT_THAT(message(Small().Piece("x", 0, 9).Model()), HasSubstr("type: 9"));
  EXPECT_THAT(message(Small().Piece("<0xZZ>", 0, Writer::kByte).Model()), HasSubstr("BYTE"));
  EXPECT_THAT(message(Small().Piece("ab", 0, Writer::kNormal).Model()), HasSubstr("SentencePiece library"));  // twice
  EXPECT_THAT(message(Small().Piece("<unk2>", 0, Writer::kUnknown).Model()),
              HasSubstr("SentencePiece library"));  // two unknowns
  EXPECT_THAT(message(Writer().Piece("a", 0, Writer::kNormal).Model()),
              HasSubstr("SentencePiece library"));  // no unknown
  const std::string good = Small().Model();
  EXPECT_EQ(Load(good.substr(0, good.size() / 2)).status().code(), kInvalid);
  EXPECT_EQ(Load(Small().ModelType(3).Model()).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(SentencePieceTokenizer, RandomlyDamagedModel_NeverCrashes) {
  std::vector<uint32_t> units(512, 0x80000000);
  units[0] = 0;
  units['a'] = 'a' | 1 << 8 | 256u << 10;
  units[256 ^ 'a'] = 0x80000000;
  const std::string good = Small().DummyPrefix(true).CharsMap(CharsMap(units, std::string_view("x\0", 2))).Model();
  ASSERT_TRUE(Load(good).ok()) << Load(good).status();
  std::mt19937 random(29);
  int num_loaded = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bad = good;
    for (uint32_t i = 1 + random() % 3; i > 0; --i) bad[random() % bad.size()] = static_cast<char>(random());
    if (random() % 8 == 0) bad.resize(random() % bad.size());
    const auto tokenizer = Load(bad);
    if (!tokenizer.ok()) continue;
    ++num_loaded;
    std::vector<int32_t> ids;
    if ((*tokenizer)->Encode("ab a\xE4\xBD\xA0 <|end|><think>\n", kParse, &ids).ok()) (*tokenizer)->Decode(ids);
  }
  EXPECT_GT(num_loaded, 0);
}

}  // namespace
}  // namespace statehouse
