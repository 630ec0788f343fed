#include "models/checkpoint.h"

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/checkpoint_builder.h"
#include "tests/models/tokenizer/checkpoint_dir.h"  // TokenizerJson

namespace statehouse {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::TempDir;
using testing::TinyPowerCoderConfig;
using testing::TinyPowerCoderTensors;
using testing::WriteCheckpoint;
using testing::WriteFile;

kernels::ThreadPool& Pool() {
  static kernels::ThreadPool pool(1);
  return pool;
}

// Dummy weights: what matters here is what is around them.
CheckpointOptions Dummy(const std::string& chat_template = "") {
  CheckpointOptions options;
  options.load.dummy = true;
  options.chat_template = chat_template;
  return options;
}

void WriteConfig(const TempDir& dir, int64_t vocab_size, const json& eos) {
  json config = TinyPowerCoderConfig();
  config["vocab_size"] = vocab_size;
  config["eos_token_id"] = eos;
  WriteFile(dir / "config.json", config.dump());
}

TEST(Checkpoint, WithoutTokenizerFiles_LoadsForTokenIdsAlone) {
  TempDir dir;
  WriteCheckpoint(dir.path(), TinyPowerCoderConfig(), TinyPowerCoderTensors());
  const auto loaded = LoadCheckpoint(dir.path(), {}, &Pool());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->name, dir.path().filename().string());
  ASSERT_NE(loaded->model, nullptr);
  EXPECT_EQ(loaded->tokenizer, nullptr);
  EXPECT_THAT(loaded->why_no_tokenizer, HasSubstr(dir.path().string()));
  EXPECT_FALSE(loaded->chat_template.has_value());
  EXPECT_THAT(loaded->why_no_chat_template, HasSubstr("no tokenizer"));
  EXPECT_EQ(LoadCheckpoint(dir.path(), Dummy("chatml"), &Pool()).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(Checkpoint, TrailingSlash_DoesNotLoseTheName) {
  TempDir dir;
  WriteFile(dir / "config.json", TinyPowerCoderConfig().dump());
  const auto loaded = LoadCheckpoint(dir.path() / "", Dummy(), &Pool());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->name, dir.path().filename().string());
}

TEST(Checkpoint, TokenizerLargerThanTheVocabulary_IsRefusedAndSmallerIsFine) {
  TempDir dir;
  WriteFile(dir / "tokenizer.json", TokenizerJson({}).dump());  // 256 bytes and two added tokens
  WriteConfig(dir, 257, 0);
  const absl::Status status = LoadCheckpoint(dir.path(), Dummy(), &Pool()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the tokenizer has 258 tokens; expected at most 257"));
  for (const int64_t enough : {258, 320}) {
    WriteConfig(dir, enough, 0);
    const auto loaded = LoadCheckpoint(dir.path(), Dummy(), &Pool());
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_NE(loaded->tokenizer, nullptr);
    EXPECT_THAT(loaded->why_no_tokenizer, IsEmpty());
  }
}

TEST(Checkpoint, EosOutsideTheVocabulary_ComesFromTheTokenizer) {
  TempDir dir;
  WriteFile(dir / "tokenizer.json", TokenizerJson({}).dump());
  WriteFile(dir / "special_tokens_map.json", R"({"eos_token": "<|end|>"})");
  WriteConfig(dir, 300, 50256);
  const auto loaded = LoadCheckpoint(dir.path(), Dummy(), &Pool());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(loaded->config.eos_ids, ElementsAre(256));
  EXPECT_THAT(loaded->warnings, Contains(HasSubstr("50256 is outside the vocabulary")));
  EXPECT_THAT(loaded->model->config().eos_ids, ElementsAre(256));
}

TEST(Checkpoint, ChatTemplate_IsChosenByTheFlagOrExplainedWhenAbsent) {
  TempDir dir;
  WriteFile(dir / "tokenizer.json", TokenizerJson({}).dump());
  WriteConfig(dir, 300, 0);
  const auto none = LoadCheckpoint(dir.path(), Dummy(), &Pool());
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_FALSE(none->chat_template.has_value());
  EXPECT_THAT(none->why_no_chat_template, HasSubstr("--chat-template"));
  const auto plain = LoadCheckpoint(dir.path(), Dummy("plain"), &Pool());
  ASSERT_TRUE(plain.ok()) << plain.status();
  ASSERT_TRUE(plain->chat_template.has_value());
  EXPECT_EQ(plain->chat_template->name(), "plain");
  EXPECT_FALSE(LoadCheckpoint(dir.path(), Dummy("chatml"), &Pool()).ok()) << "this tokenizer has no <|im_start|>";
  EXPECT_FALSE(LoadCheckpoint(dir.path(), Dummy("nonsense"), &Pool()).ok());
}

TEST(Checkpoint, MalformedTokenizer_IsRefusedBeforeTheWeights) {
  TempDir dir;
  WriteFile(dir / "tokenizer.json", "{");
  WriteConfig(dir, 300, 0);
  const absl::Status status = LoadCheckpoint(dir.path(), {}, &Pool()).status();  // there are no weights either
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json"));
}

TEST(Checkpoint, DemoOfTheRepository_LoadsWithItsTokenizerAndTemplate) {
  const std::filesystem::path dir = std::filesystem::path(STATEHOUSE_SOURCE_DIR) / "models" / "demo" / "checkpoint";
  const auto loaded = LoadCheckpoint(dir, {}, &Pool());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_NE(loaded->tokenizer, nullptr);
  ASSERT_TRUE(loaded->chat_template.has_value());
  EXPECT_EQ(loaded->chat_template->name(), "demo");
  EXPECT_THAT(loaded->config.eos_ids, Not(IsEmpty()));
  EXPECT_THAT(loaded->warnings, IsEmpty());
}

}  // namespace
}  // namespace statehouse
