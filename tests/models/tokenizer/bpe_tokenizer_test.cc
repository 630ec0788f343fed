#include <algorithm>
#include <chrono>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/tokenizer/detokenizer.h"
#include "models/tokenizer/tokenizer.h"
#include "tests/models/tokenizer/checkpoint_dir.h"

namespace statehouse {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr EncodeOptions kPlain = {.add_special_tokens = false, .parse_special_tokens = false};
constexpr EncodeOptions kParse = {.add_special_tokens = false, .parse_special_tokens = true};

std::vector<std::pair<std::string, std::string>> Merges() {
  return {{"a", "b"}, {" ", "ab"}, {"ab", "ab"}, {" ", " "}, {"\xE4", "\xBD"}, {"\xE4\xBD", "\xA0"}};
}
// Ids of Merges(): 256 "ab", 257 " ab", 258 "abab", 259 "  ", 260, 261 "你"; then 262 "<|end|>", 263 "<think>".

absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const json& tokenizer_json) {
  const CheckpointDir dir;
  dir.Write("tokenizer.json", tokenizer_json);
  return Tokenizer::Load(dir.path());
}

std::unique_ptr<Tokenizer> Usual() {
  auto tokenizer = Load(TokenizerJson(Merges()));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<int32_t> Encode(const Tokenizer& tokenizer, std::string_view text, const EncodeOptions& options = kPlain) {
  std::vector<int32_t> ids;
  const absl::Status status = tokenizer.Encode(text, options, &ids);
  EXPECT_TRUE(status.ok()) << status;
  return ids;
}

TEST(BpeTokenizer, WordsMergeByRank) {
  const auto tokenizer = Usual();
  EXPECT_EQ(tokenizer->kind(), "byte-level BPE");
  EXPECT_EQ(tokenizer->size(), 264);
  EXPECT_THAT(Encode(*tokenizer, "ababab ab"), ElementsAre(258, 256, 257));
  EXPECT_THAT(Encode(*tokenizer, "\xE4\xBD\xA0!"), ElementsAre(261, '!'));
  EXPECT_THAT(Encode(*tokenizer, ""), ElementsAre());
}

TEST(BpeTokenizer, SpecialTokensInText_AreReadOnlyWhereAsked) {
  const auto tokenizer = Usual();
  EXPECT_THAT(Encode(*tokenizer, "ab<|end|>", kParse), ElementsAre(256, 262));
  EXPECT_THAT(Encode(*tokenizer, "<|end|>"), ElementsAre('<', '|', 'e', 'n', 'd', '|', '>'));
  EXPECT_THAT(Encode(*tokenizer, "<think>"), ElementsAre(263));  // added, not special
  EXPECT_EQ(tokenizer->FindSpecial("<|end|>"), 262);
  EXPECT_EQ(tokenizer->FindSpecial("<think>"), 263);
  EXPECT_EQ(tokenizer->FindSpecial("ab"), std::nullopt);
}

TEST(BpeTokenizer, SpecialTokens_AreHiddenInTextUnlessAskedFor) {
  const auto tokenizer = Usual();
  const std::vector<int32_t> ids = {256, 262, 263};
  EXPECT_EQ(tokenizer->Decode(ids), "ab<think>");
  EXPECT_EQ(tokenizer->Decode(ids, /*show_special=*/true), "ab<|end|><think>");
  EXPECT_TRUE(tokenizer->IsSpecial(262));
  EXPECT_FALSE(tokenizer->IsSpecial(263));
  EXPECT_EQ(tokenizer->TokenBytes(262), "");
  EXPECT_EQ(tokenizer->TokenName(262), "<|end|>");
}

TEST(BpeTokenizer, BytesThatAreNotUtf8_AreEncodedAndComeBack) {
  const auto tokenizer = Usual();
  const std::string text = "ab\xFF\xFE ab\xE4\xBD";
  const std::vector<int32_t> ids = Encode(*tokenizer, text);
  EXPECT_THAT(ids, ElementsAre(256, 0xFF, 0xFE, 257, 260));
  std::string bytes;
  for (const int32_t id : ids) bytes += tokenizer->TokenBytes(id);
  EXPECT_EQ(bytes, text);
}

TEST(BpeTokenizer, TemplatePutsTokensAroundTheText) {
  json root = TokenizerJson(Merges());
  root["post_processor"] = json::parse(R"({"type": "TemplateProcessing", "pair": [],
      "single": [{"SpecialToken": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "E", "type_id": 0}}],
      "special_tokens": {"B": {"id": "B", "ids": [262], "tokens": ["B"]}, "E": {"id": "E", "ids": [263, 262], "tokens": ["E", "B"]}}})");
  const auto tokenizer = Load(root);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(Encode(**tokenizer, "ab", {.add_special_tokens = true}), ElementsAre(262, 256, 263, 262));
  EXPECT_THAT(Encode(**tokenizer, "ab"), ElementsAre(256));
}

TEST(BpeTokenizer, FilesBeside_NameBosAndEosAndSpecialTokens) {
  const CheckpointDir dir;
  dir.Write("tokenizer.json", TokenizerJson(Merges()));
  dir.Write("special_tokens_map.json",
            json{{"eos_token", "<|end|>"}, {"bos_token", {{"content", "<think>"}}}, {"pad_token", "[absent]"}});
  const auto tokenizer = Tokenizer::Load(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->eos_id(), 262);
  EXPECT_EQ((*tokenizer)->bos_id(), 263);
  EXPECT_TRUE((*tokenizer)->IsSpecial(263));
}

TEST(BpeTokenizer, VocabAndMerges_AreSplitAsTheFamilySplits) {
  const auto load = [](const json& config, const json& tokenizer_config) {
    const CheckpointDir dir;
    dir.Write("vocab.json", ByteVocab({{"1", "2"}, {"\xCC", "\x81"}}));
    dir.Write("merges.txt", std::string_view("#version: 0.2\n1 2\n\xC3\x8C \xC4\xA3\n"));
    dir.Write("config.json", config);
    dir.Write("tokenizer_config.json", tokenizer_config);
    auto tokenizer = Tokenizer::Load(dir.path());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return *std::move(tokenizer);
  };
  const std::string text = "12e\xCC\x81";
  EXPECT_THAT(Encode(*load(json::object(), json::object()), text), ElementsAre(256, 'e', 257));
  EXPECT_THAT(Encode(*load({{"model_type", "powercoder"}}, json::object()), text), ElementsAre('1', '2', 'e', 257));
  EXPECT_THAT(Encode(*load({{"model_type", "brumby"}}, json::object()), text), ElementsAre('1', '2', 0xC3, 0xA9));
  EXPECT_THAT(Encode(*load(json::object(), {{"tokenizer_class", "Qwen2Tokenizer"}}), text),
              ElementsAre('1', '2', 0xC3, 0xA9));
}

TEST(BpeTokenizer, VocabAndMerges_TakeAddedTokensFromTheFilesBeside) {
  const CheckpointDir dir;
  dir.Write("vocab.json", ByteVocab({}));
  dir.Write("merges.txt", std::string_view(""));
  dir.Write("added_tokens.json", json{{"<|end|>", 256}, {"<tool>", 300}});
  dir.Write("tokenizer_config.json", json{{"eos_token", "<|end|>"}, {"add_eos_token", true}});
  const auto tokenizer = Tokenizer::Load(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->size(), 301);
  EXPECT_EQ((*tokenizer)->TokenBytes(299), "");
  EXPECT_TRUE((*tokenizer)->IsSpecial(256));
  EXPECT_FALSE((*tokenizer)->IsSpecial(300));
  EXPECT_THAT(Encode(**tokenizer, "a<tool>", {.add_special_tokens = true}), ElementsAre('a', 300, 256));
}

TEST(BpeTokenizer, Fingerprint_ChangesWithAnythingThatChangesIds) {
  const uint64_t usual = Usual()->fingerprint();
  EXPECT_EQ(Usual()->fingerprint(), usual);
  const std::vector<std::function<void(json*)>> changes = {
      [](json* root) { std::swap((*root)["model"]["merges"][0], (*root)["model"]["merges"][3]); },
      [](json* root) { (*root)["model"]["ignore_merges"] = true; },
      [](json* root) {
        (*root)["normalizer"] = {{"type", "NFC"}};
      },
      [](json* root) { (*root)["pre_tokenizer"]["add_prefix_space"] = true; },
      [](json* root) { (*root)["added_tokens"][1]["lstrip"] = true; },
      [](json* root) { (*root)["added_tokens"][1]["content"] = "<other>"; },
      [](json* root) { (*root)["added_tokens"][1]["special"] = true; },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    json root = TokenizerJson(Merges());
    changes[i](&root);
    const auto tokenizer = Load(root);
    ASSERT_TRUE(tokenizer.ok()) << i << ": " << tokenizer.status();
    EXPECT_NE((*tokenizer)->fingerprint(), usual) << "change " << i;
  }
}

struct Damage {
  const char* what;
  std::function<void(json*)> change;
  absl::StatusCode code;
  const char* message;
};

class DamagedTokenizerJson : public testing::TestWithParam<Damage> {};

TEST_P(DamagedTokenizerJson, IsRefusedByName) {
  json root = TokenizerJson(Merges());
  GetParam().change(&root);
  const absl::Status status = Load(root).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(HasSubstr("tokenizer.json"), HasSubstr(GetParam().message)));
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

INSTANTIATE_TEST_SUITE_P(
    All, DamagedTokenizerJson,
    testing::Values(
        Damage{"RootList", [](json* r) { *r = json::array(); }, kInvalid, "expected an object"},
        Damage{"ModelMissing", [](json* r) { r->erase("model"); }, kInvalid, "model"},
        Damage{"ModelUnigram", [](json* r) { (*r)["model"]["type"] = "Unigram"; }, kUnimplemented, "model.type"},
        Damage{"VocabList", [](json* r) { (*r)["model"]["vocab"] = json::array(); }, kInvalid, "model.vocab"},
        Damage{"IdText", [](json* r) { (*r)["model"]["vocab"]["a"] = "1"; }, kInvalid, "model.vocab[\"a\"]"},
        Damage{"IdNegative", [](json* r) { (*r)["model"]["vocab"]["a"] = -1; }, kInvalid, "model.vocab[\"a\"]"},
        Damage{"IdFraction", [](json* r) { (*r)["model"]["vocab"]["a"] = 1.5; }, kInvalid, "model.vocab[\"a\"]"},
        Damage{"IdHuge", [](json* r) { (*r)["model"]["vocab"]["a"] = 4'000'000'000LL; }, kInvalid,
               "model.vocab[\"a\"]"},
        Damage{"IdTwice", [](json* r) { (*r)["model"]["vocab"]["a"] = 98; }, kInvalid, "id 98 is given to both"},
        Damage{"MergeUnknown",
               [](json* r) {
                 (*r)["model"]["merges"].push_back({"zz", "y"});
               },
               kInvalid, "merge 6 needs the token \"zz\""},
        Damage{"MergeResultUnknown", [](json* r) { (*r)["model"]["merges"].push_back("y z"); }, kInvalid, "\"yz\""},
        Damage{"MergeOfOne", [](json* r) { (*r)["model"]["merges"][2] = "ab"; }, kInvalid, "merges[2]"},
        Damage{"MergeOfThree", [](json* r) { (*r)["model"]["merges"][2] = "a b c"; }, kInvalid, "merges[2]"},
        Damage{"MergeNumber",
               [](json* r) {
                 (*r)["model"]["merges"][2] = {1, 2};
               },
               kInvalid, "merges[2]"},
        Damage{"UnkUnknown", [](json* r) { (*r)["model"]["unk_token"] = "<unk>"; }, kInvalid, "unk_token"},
        Damage{"UnkNumber", [](json* r) { (*r)["model"]["unk_token"] = 5; }, kInvalid, "model.unk_token"},
        Damage{"Dropout", [](json* r) { (*r)["model"]["dropout"] = 0.1; }, kUnimplemented, "model.dropout"},
        Damage{"ByteFallback", [](json* r) { (*r)["model"]["byte_fallback"] = true; }, kUnimplemented,
               "model.byte_fallback"},
        Damage{"Suffix", [](json* r) { (*r)["model"]["end_of_word_suffix"] = "</w>"; }, kUnimplemented,
               "end_of_word_suffix"},
        Damage{"FuseText", [](json* r) { (*r)["model"]["fuse_unk"] = "yes"; }, kInvalid, "model.fuse_unk"},
        Damage{"Truncation", [](json* r) { (*r)["truncation"] = json::object(); }, kUnimplemented, "truncation"},
        Damage{"Normalizer",
               [](json* r) {
                 (*r)["normalizer"] = {{"type", "BertNormalizer"}};
               },
               kUnimplemented, "BertNormalizer"},
        Damage{"NoPreTokenizer", [](json* r) { (*r)["pre_tokenizer"] = nullptr; }, kUnimplemented, "pre_tokenizer"},
        Damage{"Metaspace", [](json* r) { (*r)["pre_tokenizer"]["type"] = "Metaspace"; }, kUnimplemented, "Metaspace"},
        Damage{"PrefixNumber", [](json* r) { (*r)["pre_tokenizer"]["add_prefix_space"] = 1; }, kInvalid,
               "add_prefix_space"},
        Damage{"BadRegex",
               [](json* r) {
                 (*r)["pre_tokenizer"] = {
                     {"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}, {"invert", false}};
               },
               kInvalid, "pattern.Regex"},
        Damage{"Decoder",
               [](json* r) {
                 (*r)["decoder"] = {{"type", "WordPiece"}};
               },
               kUnimplemented, "decoder"},
        Damage{"PostProcessor",
               [](json* r) {
                 (*r)["post_processor"] = {{"type", "BertProcessing"}};
               },
               kUnimplemented, "BertProcessing"},
        Damage{"TemplateUnknown",
               [](json* r) {
                 (*r)["post_processor"] = {{"type", "TemplateProcessing"},
                                           {"single", {{{"SpecialToken", {{"id", "X"}}}}}}};
               },
               kInvalid, "special_tokens"},
        Damage{"TemplateIdUnknown",
               [](json* r) {
                 (*r)["post_processor"] =
                     json::parse(R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "X"}},
                     {"Sequence": {"id": "A"}}], "special_tokens": {"X": {"ids": [9999]}}})");
               },
               kInvalid, "9999"},
        Damage{"AddedNoContent", [](json* r) { (*r)["added_tokens"][0].erase("content"); }, kInvalid,
               "added_tokens[0]"},
        Damage{"AddedEmpty", [](json* r) { (*r)["added_tokens"][0]["content"] = ""; }, kInvalid,
               "added_tokens[0].content"},
        Damage{"AddedLong", [](json* r) { (*r)["added_tokens"][0]["content"] = std::string(5000, 'a'); }, kInvalid,
               "added_tokens[0].content"},
        Damage{"AddedOtherId", [](json* r) { (*r)["added_tokens"][0]["id"] = 500; }, kInvalid,
               "added_tokens[0].id: 500; expected 262"},
        Damage{"AddedOtherIdInVocab", [](json* r) { (*r)["added_tokens"][0]["content"] = "ab"; }, kInvalid,
               "expected 256"},
        Damage{"AddedTwice", [](json* r) { (*r)["added_tokens"].push_back((*r)["added_tokens"][0]); }, kInvalid,
               "added_tokens[2]"},
        Damage{"FlagNumber", [](json* r) { (*r)["added_tokens"][0]["lstrip"] = 1; }, kInvalid, "lstrip"},
        Damage{"SpecialByMerge",
               [](json* r) {
                 (*r)["added_tokens"][0]["content"] = "abab";
                 (*r)["added_tokens"][0]["id"] = 258;
                 (*r)["added_tokens"][1]["id"] = 262;
               },
               kInvalid, "could forge"},
        Damage{"SpecialByte",
               [](json* r) {
                 (*r)["added_tokens"][0]["content"] = "a";
                 (*r)["added_tokens"][0]["id"] = 97;
                 (*r)["added_tokens"][1]["id"] = 262;
               },
               kInvalid, "could forge"}),
    [](const auto& info) { return info.param.what; });

TEST(BpeTokenizer, DamagedFiles_AreRefusedByName) {
  const CheckpointDir dir;
  EXPECT_EQ(Tokenizer::Load(dir.path()).status().code(), absl::StatusCode::kNotFound);
  dir.Write("vocab.json", ByteVocab({{"a", "b"}}));
  EXPECT_THAT(Tokenizer::Load(dir.path()).status().message(), HasSubstr("merges.txt"));
  for (const char* merges : {"a\n", "a b c\n", "a \xFF\n"}) {
    dir.Write("merges.txt", std::string_view(merges));
    const absl::Status status = Tokenizer::Load(dir.path()).status();
    EXPECT_EQ(status.code(), kInvalid);
    EXPECT_THAT(status.message(), HasSubstr("merges.txt:1"));
  }
  dir.Write("merges.txt", std::string_view("a b\r\n"));
  EXPECT_TRUE(Tokenizer::Load(dir.path()).ok());
  dir.Write("added_tokens.json", json{{"<x>", 97}});
  EXPECT_THAT(Tokenizer::Load(dir.path()).status().message(), HasSubstr("id 97 is given to both"));
  dir.Write("added_tokens.json", json{{"ab", 300}});
  EXPECT_THAT(Tokenizer::Load(dir.path()).status().message(), HasSubstr("has the id 300"));
  dir.Write("added_tokens.json", json{{"<x>", "97"}});
  EXPECT_THAT(Tokenizer::Load(dir.path()).status().message(), HasSubstr("added_tokens.json"));
  dir.Write("added_tokens.json", json{{"<x>", 300}, {"<y>", 300}});
  EXPECT_THAT(Tokenizer::Load(dir.path()).status().message(), HasSubstr("contradicts"));
  dir.Write("added_tokens.json", json::object());
  dir.Write("tokenizer_config.json", json{{"add_bos_token", true}});
  EXPECT_THAT(Tokenizer::Load(dir.path()).status().message(), HasSubstr("add_bos_token"));
  dir.Write("tokenizer_config.json", std::string_view("{"));
  EXPECT_THAT(Tokenizer::Load(dir.path()).status().message(), HasSubstr("tokenizer_config.json"));
}

// Flips bytes of a good file: whatever comes of it, it is a Status or a tokenizer that works.
TEST(BpeTokenizer, RandomlyDamagedFile_NeverCrashes) {
  const std::string good = TokenizerJson(Merges()).dump();
  std::mt19937 random(17);
  int num_loaded = 0;
  for (int round = 0; round < 300; ++round) {
    std::string bad = good;
    for (uint32_t i = 1 + random() % 3; i > 0; --i) bad[random() % bad.size()] = static_cast<char>(random());
    if (random() % 4 == 0) bad.resize(random() % bad.size());
    const CheckpointDir dir;
    dir.Write("tokenizer.json", std::string_view(bad));
    const auto tokenizer = Tokenizer::Load(dir.path());
    if (!tokenizer.ok()) continue;
    ++num_loaded;
    std::vector<int32_t> ids;
    if ((*tokenizer)->Encode("ab \xE4\xBD\xA0<|end|> 123", kParse, &ids).ok()) (*tokenizer)->Decode(ids);
  }
  EXPECT_GT(num_loaded, 0);
}

TEST(BpeTokenizer, RandomBytesAndIds_RoundTripAndNeverCrash) {
  const auto tokenizer = Usual();
  std::mt19937 random(23);
  constexpr std::string_view kInteresting = "ab <|end>think\xE4\xBD\xA0\xCC\x81\xFF\xC2\xA0\r\n09'";
  for (int round = 0; round < 3000; ++round) {
    std::string text(random() % 64, '\0');
    for (char& c : text)
      c = random() % 4 == 0 ? static_cast<char>(random()) : kInteresting[random() % kInteresting.size()];
    std::string bytes;
    for (const int32_t id : Encode(*tokenizer, text)) bytes += tokenizer->TokenBytes(id);
    ASSERT_EQ(bytes, text) << "round " << round;  // no normalizer, no special token read: nothing is lost
    std::vector<int32_t> ids(random() % 32);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 300) - 10;
    Detokenizer detokenizer(tokenizer.get());
    std::string streamed;
    for (const int32_t id : ids) detokenizer.Append(id, &streamed);
    detokenizer.Flush(&streamed);
    ASSERT_EQ(streamed, tokenizer->Decode(ids)) << "round " << round;
  }
}

TEST(BpeTokenizer, MegabyteTextsOfEveryKind_AreEncodedInTime) {
  json root = TokenizerJson(Merges());
  root["normalizer"] = {{"type", "NFC"}};
  const auto tokenizer = Load(root);
  ASSERT_TRUE(tokenizer.ok());
  for (const char* part : {" ", "a", "ab", "\n", "'s", "1", "\xE4\xBD\xA0", "\xCC\x81\xCC\xA3", "<|en", "\xFF", " \n",
                           "=", "\xF0\x9F\x98\x80"}) {
    std::string text;
    while (text.size() < 1 << 20) text += part;
    const auto start = std::chrono::steady_clock::now();
    EXPECT_FALSE(Encode(**tokenizer, text, kParse).empty());
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60)) << part;
  }
}

TEST(BpeTokenizer, ManyThreads_GetTheSameIds) {
  const auto tokenizer = Usual();
  const std::string text = "abab ab  \xE4\xBD\xA0 <|end|> 12 it's";
  const std::vector<int32_t> expected = Encode(*tokenizer, text, kParse);
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        std::vector<int32_t> ids;
        if (!tokenizer->Encode(text, kParse, &ids).ok() || ids != expected) ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, testing::Each(0));
}

TEST(BpeTokenizer, VocabularyWithoutAByte_RefusesOnlyTextsWithIt) {
  json root = TokenizerJson({});
  root["model"]["vocab"].erase("z");
  root["model"]["vocab"]["zz"] = 'z';
  const auto tokenizer = Load(root);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::vector<int32_t> ids = {1};
  const absl::Status status = (*tokenizer)->Encode("az", kPlain, &ids);
  EXPECT_EQ(status.code(), kInvalid);
  EXPECT_THAT(status.message(), HasSubstr("0x7A"));
  EXPECT_THAT(ids, ElementsAre(1));
}

}  // namespace
}  // namespace statehouse
