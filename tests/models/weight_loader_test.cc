// What LoadModel() refuses, what it fills in, and what its fingerprint depends on.
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/element.h"
#include "models/model.h"
#include "models/weight_files.h"
#include "tests/models/checkpoint_builder.h"
#include "tests/models/sequence_runner.h"

namespace statehouse {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::PatternF32;
using testing::RawTensor;
using testing::RawTensors;
using testing::SafetensorsBytes;
using testing::SequenceRunner;
using testing::TempDir;
using testing::TinyBrumbyConfig;
using testing::TinyBrumbyTensors;
using testing::TinyPowerCoderConfig;
using testing::TinyPowerCoderTensors;
using testing::WriteCheckpoint;
using testing::WriteFile;

kernels::ThreadPool& Pool() {
  static kernels::ThreadPool pool(2);
  return pool;
}

absl::StatusOr<std::unique_ptr<Model>> LoadTiny(const RawTensors& tensors, const LoadOptions& options = {},
                                                const json& config = TinyPowerCoderConfig()) {
  TempDir dir;
  WriteCheckpoint(dir.path(), config, tensors);
  return LoadModel(dir.path(), options, &Pool());
}

void ExpectMessage(const absl::Status& status, const std::vector<std::string>& parts) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  for (const std::string& part : parts) EXPECT_THAT(std::string(status.message()), HasSubstr(part));
}

// The same values in two bytes each, if they fit exactly (PatternF32 ones do).
RawTensor Narrowed(const RawTensor& tensor, const std::string& dtype) {
  RawTensor narrow{dtype, tensor.shape, ""};
  for (size_t i = 0; i < tensor.bytes.size(); i += 4) {
    uint32_t bits;
    std::memcpy(&bits, tensor.bytes.data() + i, 4);
    uint16_t half = static_cast<uint16_t>(bits >> 16);
    if (dtype == "F16" && bits != 0) {
      half = static_cast<uint16_t>(((bits >> 16) & 0x8000u) | ((((bits >> 23) & 0xffu) - 112) << 10) |
                                   ((bits >> 13) & 0x3ffu));
    }
    narrow.bytes.append(reinterpret_cast<const char*>(&half), 2);
  }
  return narrow;
}

RawTensors Narrowed(const RawTensors& tensors, const std::string& dtype) {
  RawTensors narrow;
  for (const auto& [name, tensor] : tensors) narrow[name] = Narrowed(tensor, dtype);
  return narrow;
}

std::vector<float> LogitsOf(Model& model) {
  EXPECT_TRUE(model.Reserve(8, 8).ok());
  const std::vector<int32_t> tokens = {1, 5, 3, 15, 0, 2};
  return SequenceRunner(&model).Append(tokens, 8);
}

TEST(LoadModel, TinyPowerCoder_LoadsAndComputes) {
  const auto model = LoadTiny(TinyPowerCoderTensors());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->weight_type(), kernels::WeightType::kF32);
  EXPECT_EQ((*model)->num_parameters(), 16 * 8 + 2 * (32 + 8 * 9 + 2 * 4 * 9 + 9 + 8 * 9 + 12 * 9 + 8 * 13) + 16);
  for (float logit : LogitsOf(**model)) EXPECT_TRUE(std::isfinite(logit));
}

TEST(LoadModel, MissingTensor_NamesFileTensorAndShape) {
  RawTensors tensors = TinyPowerCoderTensors();
  tensors.erase("model.layers.1.self_attn.g_proj.bias");
  ExpectMessage(
      LoadTiny(tensors).status(),
      {"model.safetensors: tensor \"model.layers.1.self_attn.g_proj.bias\": missing; expected F32, F16 or BF16 [1]"});
}

TEST(LoadModel, ExtraTensor_IsNamed) {
  RawTensors tensors = TinyPowerCoderTensors();
  tensors["model.layers.2.mlp.c_fc.weight"] = PatternF32({12, 8}, 1);
  ExpectMessage(LoadTiny(tensors).status(),
                {"model.safetensors: tensor \"model.layers.2.mlp.c_fc.weight\": unexpected; expected only tensors"});
}

TEST(LoadModel, WrongShape_NamesBothShapes) {
  RawTensors tensors = TinyPowerCoderTensors();
  tensors["model.layers.0.mlp.c_fc.weight"] = PatternF32({8, 12}, 1);
  ExpectMessage(LoadTiny(tensors).status(),
                {"tensor \"model.layers.0.mlp.c_fc.weight\": shape [8, 12]; expected [12, 8] from config.json"});
}

TEST(LoadModel, IntegerTensor_IsRefusedByDtype) {
  RawTensors tensors = TinyPowerCoderTensors();
  tensors["model.norm.weight"].dtype = "I32";
  ExpectMessage(LoadTiny(tensors).status(), {"tensor \"model.norm.weight\": dtype I32; expected F32, F16 or BF16"});
}

TEST(LoadModel, SeveralProblems_AreListedAtOnceAndNotWithoutEnd) {
  RawTensors tensors = TinyPowerCoderTensors();
  tensors.erase("model.norm.bias");
  tensors["model.norm.weight"] = PatternF32({4}, 1);
  ExpectMessage(LoadTiny(tensors).status(), {"\"model.norm.bias\": missing", "\"model.norm.weight\": shape [4]"});
  ExpectMessage(LoadTiny({}).status(), {"\"model.embed_tokens.weight\": missing", "… and 31 more"});
}

TEST(LoadModel, NanAndInfinity_AreRefusedInMatricesAndVectorsOfEveryType) {
  for (const float bad :
       {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    for (const char* name : {"model.layers.1.mlp.c_proj.weight", "model.layers.0.input_layernorm.bias"}) {
      RawTensors tensors = TinyPowerCoderTensors();
      std::memcpy(tensors[name].bytes.data() + 4, &bad, 4);
      ExpectMessage(LoadTiny(tensors).status(), {"model.safetensors: tensor \"" + std::string(name) + "\"", "finite"});
      for (const auto& [dtype, bits] : {std::pair("F16", uint16_t{0x7c00}), std::pair("BF16", uint16_t{0xff80})}) {
        RawTensors narrow = Narrowed(TinyPowerCoderTensors(), dtype);
        std::memcpy(narrow[name].bytes.data() + 2, &bits, 2);
        ExpectMessage(LoadTiny(narrow).status(), {"tensor \"" + std::string(name) + "\"", "finite"});
      }
    }
  }
}

TEST(Elements, RoundedToBf16_AreTheNearestAndRefusedBeyondTheLargest) {
  EXPECT_EQ(FloatToBf16(1.0f), 0x3f80u);
  EXPECT_EQ(FloatToBf16(std::bit_cast<float>(0x3f808000u)), 0x3f80u) << "a tie goes to the even one";
  EXPECT_EQ(FloatToBf16(std::bit_cast<float>(0x3f818000u)), 0x3f82u) << "a tie goes to the even one";
  EXPECT_EQ(FloatToBf16(std::bit_cast<float>(0xbf808001u)), 0xbf81u);
  const float largest = std::bit_cast<float>(0x7f7f0000u), rounds_down = std::bit_cast<float>(0x7f7f7fffu);
  const float rounds_past = std::bit_cast<float>(0x7f7f8000u);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const auto& [value, fits_bf16, fits_f32] :
       std::vector<std::tuple<float, bool, bool>>{{largest, true, true},
                                                  {-rounds_down, true, true},
                                                  {rounds_past, false, true},
                                                  {-std::numeric_limits<float>::max(), false, true},
                                                  {kInfinity, false, false},
                                                  {std::numeric_limits<float>::quiet_NaN(), false, false}}) {
    const float values[3] = {9.0f, value, 0.5f};
    uint16_t rounded[2];
    float same[2];
    EXPECT_EQ(CopyElements(values, kernels::SourceType::kF32, 1, 2, /*to_bf16=*/true, rounded), fits_bf16) << value;
    EXPECT_EQ(CopyElements(values, kernels::SourceType::kF32, 1, 2, /*to_bf16=*/false, same), fits_f32) << value;
    EXPECT_EQ(rounded[1], 0x3f00u);
    EXPECT_EQ(same[1], 0.5f);
  }
}

TEST(LoadModel, SameValuesInF32F16AndBF16_ComputeTheSame) {
  const RawTensors tensors = TinyPowerCoderTensors();
  auto f32 = LoadTiny(tensors);
  ASSERT_TRUE(f32.ok()) << f32.status();
  for (const char* dtype : {"F16", "BF16"}) {
    auto narrow = LoadTiny(Narrowed(tensors, dtype));
    ASSERT_TRUE(narrow.ok()) << narrow.status();
    EXPECT_EQ(LogitsOf(**narrow), LogitsOf(**f32)) << dtype;
    EXPECT_EQ((*narrow)->weight_type(),
              std::string(dtype) == "F16" ? kernels::WeightType::kF32 : kernels::WeightType::kBF16);
  }
}

TEST(LoadModel, LmHead_IsOptionalWhenTiedAndWinsWhenThere) {
  RawTensors tensors = TinyPowerCoderTensors();
  auto tied = LoadTiny(tensors);
  ASSERT_TRUE(tied.ok()) << tied.status();
  EXPECT_EQ((*tied)->step_weight_bytes(), (*tied)->weight_bytes());
  tensors["lm_head.weight"] = PatternF32({16, 8}, 99);
  auto own = LoadTiny(tensors);
  ASSERT_TRUE(own.ok()) << own.status();
  EXPECT_LT((*own)->step_weight_bytes(), (*own)->weight_bytes());
  EXPECT_NE(LogitsOf(**own), LogitsOf(**tied));

  json untied = TinyPowerCoderConfig();
  untied["tie_word_embeddings"] = false;
  EXPECT_TRUE(LoadTiny(tensors, {}, untied).ok());
  ExpectMessage(LoadTiny(TinyPowerCoderTensors(), {}, untied).status(), {"\"lm_head.weight\": missing"});
}

TEST(LoadModel, HeadOfATiedBrumby_IsLeftOutWithAWarning) {
  json config = TinyBrumbyConfig();
  config["tie_word_embeddings"] = true;
  RawTensors tensors = TinyBrumbyTensors();
  std::vector<std::string> warnings;
  LoadOptions options;
  options.on_warning = [&](const std::string& warning) { warnings.push_back(warning); };
  auto tied = LoadTiny(tensors, options, config);
  ASSERT_TRUE(tied.ok()) << tied.status();
  EXPECT_THAT(warnings, IsEmpty());
  tensors["lm_head.weight"] = PatternF32({16, 8}, 99);
  auto with_a_head = LoadTiny(tensors, options, config);
  ASSERT_TRUE(with_a_head.ok()) << with_a_head.status();
  EXPECT_EQ(LogitsOf(**with_a_head), LogitsOf(**tied));
  EXPECT_EQ((*with_a_head)->num_parameters(), (*tied)->num_parameters());
  EXPECT_THAT(warnings, ElementsAre(AllOf(HasSubstr("tensor \"lm_head.weight\": not used"),
                                          HasSubstr("tie_word_embeddings is true"))));

  config["tie_word_embeddings"] = false;
  auto untied = LoadTiny(tensors, {}, config);
  ASSERT_TRUE(untied.ok()) << untied.status();
  EXPECT_NE(LogitsOf(**untied), LogitsOf(**tied));
  ExpectMessage(LoadTiny(TinyBrumbyTensors(), {}, config).status(), {"\"lm_head.weight\": missing"});
}

TEST(LoadModel, WithoutBiases_NormsStillHaveThem) {
  json config = TinyPowerCoderConfig();
  config["use_bias"] = false;
  ExpectMessage(LoadTiny(TinyPowerCoderTensors(), {}, config).status(),
                {"\"model.layers.0.mlp.c_fc.bias\": unexpected"});
  RawTensors tensors;
  for (const auto& [name, tensor] : TinyPowerCoderTensors()) {
    if (name.ends_with("_proj.bias") || name.ends_with("c_fc.bias")) continue;
    tensors[name] = tensor;
  }
  EXPECT_TRUE(LoadTiny(tensors, {}, config).ok()) << LoadTiny(tensors, {}, config).status();
}

TEST(LoadModel, NoWeightFiles_SaysWhichWereExpected) {
  TempDir dir;
  WriteFile(dir / "config.json", TinyPowerCoderConfig().dump());
  const absl::Status status = LoadModel(dir.path(), {}, &Pool()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("model.safetensors: no such file, nor model.safetensors.index.json"));
}

TEST(LoadModel, Progress_EndsAtTheBytesOfTheFile) {
  int64_t done = 0;
  int64_t total = 0;
  int calls = 0;
  LoadOptions options;
  options.progress = [&](int64_t bytes, int64_t all) {
    EXPECT_GT(bytes, done);
    done = bytes;
    total = all;
    ++calls;
  };
  const auto model = LoadTiny(TinyPowerCoderTensors(), options);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(done, total);
  EXPECT_EQ(total, (*model)->num_parameters() * 4);
  EXPECT_GT(calls, 10);
}

TEST(Fingerprint, SameWeights_WhateverTheDtypeLoadedOrTheFiles) {
  const RawTensors tensors = TinyPowerCoderTensors();
  const uint64_t one = (*LoadTiny(tensors))->fingerprint();
  LoadOptions options;
  for (const auto dtype : {LoadOptions::DType::kF32, LoadOptions::DType::kBF16, LoadOptions::DType::kInt8}) {
    options.dtype = dtype;
    EXPECT_EQ((*LoadTiny(tensors, options))->fingerprint(), one);
  }
  TempDir dir;
  json weight_map;
  RawTensors shards[2];
  int count = 0;
  for (const auto& [name, tensor] : tensors) {
    const int shard = count++ % 2;
    shards[shard][name] = tensor;
    weight_map[name] = shard == 0 ? "a.safetensors" : "b.safetensors";
  }
  WriteFile(dir / "config.json", TinyPowerCoderConfig().dump());
  WriteFile(dir / "a.safetensors", SafetensorsBytes(shards[0]));
  WriteFile(dir / "b.safetensors", SafetensorsBytes(shards[1]));
  WriteFile(dir / "model.safetensors.index.json", json{{"weight_map", weight_map}}.dump());
  const auto sharded = LoadModel(dir.path(), {}, &Pool());
  ASSERT_TRUE(sharded.ok()) << sharded.status();
  EXPECT_EQ((*sharded)->fingerprint(), one);
}

TEST(Fingerprint, AnyWeightChunkOrConfig_ChangesIt) {
  RawTensors tensors = TinyPowerCoderTensors();
  const uint64_t one = (*LoadTiny(tensors))->fingerprint();
  LoadOptions options;
  options.chunk = 64;
  EXPECT_NE((*LoadTiny(tensors, options))->fingerprint(), one);
  json config = TinyPowerCoderConfig();
  config["rope_theta"] = 20000.0;
  EXPECT_NE((*LoadTiny(tensors, {}, config))->fingerprint(), one);
  config = TinyPowerCoderConfig();
  config["max_position_embeddings"] = 77;  // reported only
  EXPECT_EQ((*LoadTiny(tensors, {}, config))->fingerprint(), one);
  tensors["model.layers.1.mlp.c_proj.bias"].bytes[2] ^= 1;
  EXPECT_NE((*LoadTiny(tensors))->fingerprint(), one);
}

// --- model.safetensors.index.json ---

struct HostileIndex {
  const char* name;
  std::string index;
  std::vector<std::string> message;
};

TEST(WeightFiles, HostileIndexes_AreRefusedNamingFileTensorAndExpectation) {
  const HostileIndex cases[] = {
      {"no JSON", "{", {"model.safetensors.index.json: not valid JSON"}},
      {"no map", R"({"metadata": {}})", {"weight_map: missing; expected an object"}},
      {"map no object", R"({"weight_map": []})", {"weight_map: missing; expected an object"}},
      {"empty map", R"({"weight_map": {}})", {"names no tensor; expected at least one"}},
      {"no string",
       R"({"weight_map": {"u": 1}})",
       {"tensor \"u\": no string; expected the name of a .safetensors file"}},
      {"escapes upwards",
       R"({"weight_map": {"u": "../a.safetensors"}})",
       {"tensor \"u\": \"../a.safetensors\"; expected the name of a .safetensors file in the same directory"}},
      {"absolute", R"({"weight_map": {"u": "/etc/a.safetensors"}})", {"\"/etc/a.safetensors\"; expected the name"}},
      {"below", R"({"weight_map": {"u": "sub/a.safetensors"}})", {"\"sub/a.safetensors\"; expected the name"}},
      {"other kind", R"({"weight_map": {"u": "a.bin"}})", {"\"a.bin\"; expected the name of a .safetensors file"}},
      {"zero byte", "{\"weight_map\": {\"u\": \"a.safetensors\\u0000.safetensors\"}}", {"expected the name"}},
      {"tensor twice",
       R"({"weight_map": {"u": "a.safetensors", "u": "b.safetensors", "w": "b.safetensors"}})",
       {"model.safetensors.index.json: key \"u\" appears twice"}},
      {"tensor in no shard",
       R"({"weight_map": {"u": "a.safetensors", "w": "b.safetensors", "x": "b.safetensors"}})",
       {"b.safetensors: tensor \"x\" is missing; ", "model.safetensors.index.json expects it in this file"}},
      {"tensor in the other shard",
       R"({"weight_map": {"u": "b.safetensors", "w": "b.safetensors", "v": "a.safetensors"}})",
       {"a.safetensors: tensor \"u\" is in this file, but ", "expects it in \"b.safetensors\""}},
      {"tensor not named",
       R"({"weight_map": {"w": "b.safetensors", "v": "a.safetensors"}})",
       {"a.safetensors: tensor \"u\" is in this file, but ", "does not name it"}},
  };
  for (const HostileIndex& hostile : cases) {
    SCOPED_TRACE(hostile.name);
    TempDir dir;
    WriteFile(dir / "a.safetensors", SafetensorsBytes({{"u", PatternF32({2}, 1)}}));
    WriteFile(dir / "b.safetensors", SafetensorsBytes({{"w", PatternF32({2}, 2)}}));
    WriteFile(dir / "model.safetensors.index.json", hostile.index);
    ExpectMessage(WeightFiles::Open(dir.path()).status(), hostile.message);
  }
}

TEST(WeightFiles, MissingShard_NamesItAndATensorOfIt) {
  TempDir dir;
  WriteFile(dir / "model.safetensors.index.json", R"({"weight_map": {"u": "gone.safetensors"}})");
  const absl::Status status = WeightFiles::Open(dir.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("gone.safetensors: no such file"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("expects tensor \"u\" in it"));
}

TEST(WeightFiles, SymbolicLinksToShards_AreFollowed) {
  TempDir blobs;
  TempDir dir;
  WriteFile(blobs / "4f2a", SafetensorsBytes({{"u", PatternF32({2}, 1)}}));
  std::filesystem::create_symlink(blobs / "4f2a", dir / "model-00001-of-00001.safetensors");
  WriteFile(dir / "model.safetensors.index.json", R"({"weight_map": {"u": "model-00001-of-00001.safetensors"}})");
  const auto files = WeightFiles::Open(dir.path());
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->tensors().size(), 1u);
}

// --- dummy weights ---

TEST(DummyWeights, SameSeed_SameModelAndFiniteLogitsOfSensibleSize) {
  for (const json& config : {TinyPowerCoderConfig(), TinyBrumbyConfig()}) {
    TempDir dir;
    WriteFile(dir / "config.json", config.dump());
    LoadOptions options;
    options.dummy = true;
    options.dummy_seed = 5;
    auto one = LoadModel(dir.path(), options, &Pool());
    auto two = LoadModel(dir.path(), options, &Pool());
    options.dummy_seed = 6;
    auto other = LoadModel(dir.path(), options, &Pool());
    ASSERT_TRUE(one.ok()) << one.status();
    EXPECT_EQ((*one)->weight_type(), kernels::WeightType::kBF16);
    const std::vector<float> logits = LogitsOf(**one);
    EXPECT_EQ(logits, LogitsOf(**two));
    EXPECT_NE(logits, LogitsOf(**other));
    EXPECT_EQ((*one)->fingerprint(), (*two)->fingerprint());
    EXPECT_NE((*one)->fingerprint(), (*other)->fingerprint());
    double squares = 0;
    for (float logit : logits) squares += static_cast<double>(logit) * logit;
    const double deviation = std::sqrt(squares / static_cast<double>(logits.size()));
    EXPECT_GT(deviation, 0.1);
    EXPECT_LT(deviation, 10);
  }
}

TEST(DType, Names_AreTheFourOfTheFlag) {
  EXPECT_EQ(*ParseDType("auto"), LoadOptions::DType::kAuto);
  EXPECT_EQ(*ParseDType("f32"), LoadOptions::DType::kF32);
  EXPECT_EQ(*ParseDType("bf16"), LoadOptions::DType::kBF16);
  EXPECT_EQ(*ParseDType("int8"), LoadOptions::DType::kInt8);
  ExpectMessage(ParseDType("fp8").status(), {"--dtype \"fp8\": expected auto, f32, bf16 or int8"});
}

}  // namespace
}  // namespace statehouse
