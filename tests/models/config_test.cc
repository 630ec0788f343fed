#include "models/config.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/checkpoint_builder.h"

namespace statehouse {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TempDir;
using testing::TinyBrumbyConfig;
using testing::TinyPowerCoderConfig;
using testing::WriteFile;

// As published for PowerCoder-3B: ids outside its own vocabulary and all.
constexpr char kPublishedPowerCoder[] = R"({
  "architectures": ["PowerCoderForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 50256, "dtype": "float32",
  "embedding_dropout": 0.0, "eos_token_id": 50256, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 3072,
  "hybrid_exp": "none", "initializer_range": 0.018042, "intermediate_size": 12288, "max_position_embeddings": 4096,
  "model_type": "powercoder", "norm_epsilon": 1e-05, "num_attention_heads": 24, "num_hidden_layers": 30,
  "num_key_value_heads": 2, "residual_dropout": 0.0, "rope_scaling": null, "rope_theta": 10000.0, "sliding_window": null,
  "transformers_version": "4.57.0.dev0", "use_bias": true, "use_cache": true, "vocab_size": 49152})";
constexpr char kPublishedGeneration[] = R"({"_from_model_config": true, "bos_token_id": 50256, "eos_token_id": 50256,
  "transformers_version": "4.57.0.dev0"})";

constexpr char kBrumby14B[] = R"({
  "architectures": ["BrumbyForCausalLM"], "model_type": "brumby", "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
  "initializer_range": 0.02, "intermediate_size": 17408, "max_position_embeddings": 40960, "max_window_layers": 40,
  "num_attention_heads": 40, "num_hidden_layers": 40, "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null,
  "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
  "use_sliding_window": false, "chunk_size": 128, "switch_over_seq_len": 8192, "prefill_chunk_size": 1024, "use_exp": false,
  "p": 2, "vocab_size": 151936})";

absl::StatusOr<CheckpointConfig> Read(const json& config, const json& generation = nullptr,
                                      const TokenIdSource& ids = {}) {
  TempDir dir;
  WriteFile(dir / "config.json", config.dump());
  if (!generation.is_null()) WriteFile(dir / "generation_config.json", generation.dump());
  return ReadConfig(dir.path(), ids);
}

TEST(Config, PublishedPowerCoder_LoadsAndTakesEosFromSpecialTokens) {
  TempDir dir;
  WriteFile(dir / "config.json", kPublishedPowerCoder);
  WriteFile(dir / "generation_config.json", kPublishedGeneration);
  WriteFile(dir / "special_tokens_map.json", R"({"eos_token": {"content": "<|endoftext|>", "lstrip": false}})");
  WriteFile(dir / "vocab.json", R"({"<fim_prefix>": 1, "<|endoftext|>": 0})");
  const auto config = ReadConfig(dir.path());
  ASSERT_TRUE(config.ok()) << config.status();
  const ModelConfig& model = config->model;
  EXPECT_EQ(model.family, Family::kPowerCoder);
  EXPECT_EQ(model.hidden_size, 3072);
  EXPECT_EQ(model.intermediate_size, 12288);
  EXPECT_EQ(model.num_layers, 30);
  EXPECT_EQ(model.heads_q, 24);
  EXPECT_EQ(model.heads_kv, 2);
  EXPECT_EQ(model.head_dim, 128);
  EXPECT_EQ(model.vocab_size, 49152);
  EXPECT_EQ(model.degree, 2);
  EXPECT_EQ(model.chunk, 128);
  EXPECT_FALSE(model.switch_over_bound.has_value());
  EXPECT_EQ(model.rope_theta, 1e4);
  EXPECT_TRUE(model.use_bias);
  EXPECT_TRUE(model.tie_embeddings);
  EXPECT_EQ(model.max_position_embeddings, 4096);
  EXPECT_THAT(model.bos_ids, IsEmpty());
  EXPECT_THAT(model.eos_ids, ElementsAre(0));
  EXPECT_THAT(model.warnings, Contains(HasSubstr("eos_token_id: 50256 is outside the vocabulary of 49152 tokens")));
  EXPECT_THAT(model.warnings, Contains(HasSubstr("eos is \"<|endoftext|>\" (id 0)")));
}

TEST(Config, PublishedPowerCoderWithoutItsVocabulary_SaysThatAnswersHaveNoEnd) {
  TempDir dir;
  WriteFile(dir / "config.json", kPublishedPowerCoder);
  WriteFile(dir / "special_tokens_map.json", R"({"eos_token": "<|endoftext|>"})");
  const auto config = ReadConfig(dir.path());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->model.eos_ids, IsEmpty());
  EXPECT_THAT(config->model.warnings, Contains(HasSubstr("\"<|endoftext|>\" is in no vocabulary file")));
}

TEST(Config, EosOfTheSpecialTokens_IsFoundInEachFileThatMayNameIt) {
  const std::pair<const char*, const char*> files[] = {
      {"tokenizer.json", R"({"added_tokens": [{"id": 5, "content": "<eos>"}], "model": {"vocab": {"a": 0}}})"},
      {"tokenizer.json", R"({"added_tokens": [], "model": {"vocab": {"<eos>": 5}}})"},
      {"added_tokens.json", R"({"<eos>": 5})"},
      {"tokenizer_config.json", R"({"added_tokens_decoder": {"5": {"content": "<eos>"}}})"},
      {"vocab.json", R"({"<eos>": 5})"},
  };
  for (const auto& [name, text] : files) {
    SCOPED_TRACE(std::string(name) + ": " + text);
    TempDir dir;
    json config = TinyPowerCoderConfig();
    config.erase("eos_token_id");
    WriteFile(dir / "config.json", config.dump());
    WriteFile(dir / "special_tokens_map.json", R"({"eos_token": "<eos>"})");
    WriteFile(dir / name, text);
    const auto read = ReadConfig(dir.path());
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_THAT(read->model.eos_ids, ElementsAre(5));
  }
}

TEST(Config, EosFromAResolverAndFromTheTokenizer_InThatOrder) {
  json config = TinyPowerCoderConfig();
  config["eos_token_id"] = 99;
  TempDir dir;
  WriteFile(dir / "config.json", config.dump());
  WriteFile(dir / "special_tokens_map.json", R"({"eos_token": "<eos>"})");
  TokenIdSource ids;
  ids.tokenizer_eos = 7;
  ids.resolve = [](std::string_view spelling) {
    return spelling == "<eos>" ? std::optional<int64_t>(3) : std::nullopt;
  };
  EXPECT_THAT(ReadConfig(dir.path(), ids)->model.eos_ids, ElementsAre(3));
  ids.resolve = [](std::string_view) { return std::nullopt; };
  EXPECT_THAT(ReadConfig(dir.path(), ids)->model.eos_ids, ElementsAre(7));
}

TEST(Config, Brumby14B_Loads) {
  const auto config = Read(json::parse(kBrumby14B));
  ASSERT_TRUE(config.ok()) << config.status();
  const ModelConfig& model = config->model;
  EXPECT_EQ(model.family, Family::kBrumby);
  EXPECT_EQ(model.hidden_size, 5120);
  EXPECT_EQ(model.heads_q, 40);
  EXPECT_EQ(model.heads_kv, 8);
  EXPECT_EQ(model.head_dim, 128);
  EXPECT_EQ(model.switch_over_bound, 8192);
  EXPECT_EQ(model.rope_theta, 1e6);
  EXPECT_EQ(model.norm_epsilon, 1e-6f);
  EXPECT_FALSE(model.use_bias);
  EXPECT_FALSE(model.tie_embeddings);
  EXPECT_THAT(model.eos_ids, ElementsAre(151645));
  EXPECT_THAT(model.warnings, IsEmpty());
}

TEST(Config, GenerationConfig_IsTheLaterWordForEosAndNamesDefaults) {
  const auto config = Read(TinyPowerCoderConfig(), json{{"eos_token_id", {3, 4, 400}},
                                                        {"do_sample", false},
                                                        {"temperature", 0.5},
                                                        {"top_p", 0.9},
                                                        {"top_k", -1},
                                                        {"min_p", 0},
                                                        {"typical_p", 1.0},
                                                        {"repetition_penalty", 1.1}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->model.eos_ids, ElementsAre(3, 4));
  EXPECT_THAT(config->model.warnings, ElementsAre(HasSubstr("eos_token_id: 400 is outside")));
  EXPECT_TRUE(config->generation.greedy);
  EXPECT_EQ(config->generation.temperature, 0.5);
  EXPECT_EQ(config->generation.top_p, 0.9);
  EXPECT_EQ(config->generation.top_k, 0);
  EXPECT_EQ(config->generation.min_p, 0);
  EXPECT_EQ(config->generation.typical_p, 1.0);
  EXPECT_EQ(config->generation.repetition_penalty, 1.1);
}

TEST(Config, UnusableEosOfTheGenerationConfig_LeavesThatOfTheConfig) {
  json config = TinyPowerCoderConfig();
  config["eos_token_id"] = 6;
  const auto read = Read(config, json{{"eos_token_id", 5000}});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(read->model.eos_ids, ElementsAre(6));
}

TEST(Config, NoGenerationConfig_LeavesDefaultsEmpty) {
  const auto config = Read(TinyPowerCoderConfig());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->generation.temperature.has_value());
  EXPECT_FALSE(config->generation.greedy);
}

struct Variant {
  const char* name;
  std::function<void(json&)> change;
};

TEST(Config, HarmlessVariants_Load) {
  const Variant powercoder[] = {
      {"no model_type", [](json& c) { c.erase("model_type"); }},
      {"no architectures", [](json& c) { c.erase("architectures"); }},
      {"hybrid_exp none", [](json& c) { c["hybrid_exp"] = "none"; }},
      {"use_exp false", [](json& c) { c["use_exp"] = false; }},
      {"windows named but off",
       [](json& c) {
         c["sliding_window"] = 4096;
         c["use_sliding_window"] = false;
       }},
      {"default rope",
       [](json& c) {
         c["rope_scaling"] = {{"rope_type", "default"}};
       }},
      {"any dtype", [](json& c) { c["dtype"] = c["torch_dtype"] = "float8_e4m3fn"; }},
      {"eos null", [](json& c) { c["eos_token_id"] = nullptr; }},
      {"degree 4", [](json& c) { c["p"] = 4; }},
      {"unknown keys",
       [](json& c) {
         c["something_new"] = {{"a", 1}};
       }},
  };
  for (const Variant& variant : powercoder) {
    SCOPED_TRACE(variant.name);
    json config = TinyPowerCoderConfig();
    variant.change(config);
    EXPECT_TRUE(Read(config).ok()) << Read(config).status();
  }
  json brumby = TinyBrumbyConfig();
  brumby["sliding_window"] = 4096;  // means nothing without use_sliding_window
  EXPECT_TRUE(Read(brumby).ok()) << Read(brumby).status();
}

TEST(Config, ThetaInRopeParameters_IsRead) {
  json config = TinyBrumbyConfig();
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e6}};
  EXPECT_EQ(Read(config)->model.rope_theta, 5e6);
}

TEST(Config, MissingKeyValueHeadsAndHeadDim_AreDerived) {
  json config = TinyPowerCoderConfig();
  config.erase("num_key_value_heads");
  const auto read = Read(config);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->model.heads_kv, 2);
  EXPECT_EQ(read->model.head_dim, 4);
}

struct Refused {
  const char* name;
  std::function<void(json&)> change;
  absl::StatusCode code;
  const char* message;
};

void ExpectRefused(const json& base, const Refused& refused) {
  SCOPED_TRACE(refused.name);
  json config = base;
  refused.change(config);
  const absl::Status status = Read(config).status();
  EXPECT_EQ(status.code(), refused.code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("config.json: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(refused.message));
}

TEST(Config, OptionsThatChangeTheMaths_AreRefusedByName) {
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  const Refused powercoder[] = {
      {"family", [](json& c) { c["model_type"] = "llama"; }, kUnimplemented, "model_type: \"llama\" is not supported"},
      {"architecture", [](json& c) { c["architectures"] = {"LlamaForCausalLM"}; }, kUnimplemented,
       "architectures: [\"LlamaForCausalLM\"] is not supported"},
      {"neither",
       [](json& c) {
         c.erase("model_type");
         c.erase("architectures");
       },
       kUnimplemented, "model_type: missing is not supported"},
      {"hybrid_exp", [](json& c) { c["hybrid_exp"] = "half"; }, kUnimplemented,
       "hybrid_exp: \"half\" is not supported"},
      {"use_exp", [](json& c) { c["use_exp"] = true; }, kUnimplemented,
       "use_exp: true is not supported; expected false"},
      {"sliding_window", [](json& c) { c["sliding_window"] = 4096; }, kUnimplemented, "sliding_window: 4096 is not"},
      {"use_sliding_window", [](json& c) { c["use_sliding_window"] = true; }, kUnimplemented,
       "use_sliding_window: true"},
      {"rope_scaling",
       [](json& c) {
         c["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0}};
       },
       kUnimplemented, "rope_scaling: {\"factor\":4.0,\"rope_type\":\"yarn\"} is not supported"},
      {"rope_scaling old",
       [](json& c) {
         c["rope_scaling"] = {{"type", "linear"}};
       },
       kUnimplemented, "rope_scaling: "},
      {"partial rope", [](json& c) { c["partial_rotary_factor"] = 0.5; }, kUnimplemented, "partial_rotary_factor: 0.5"},
      {"degree", [](json& c) { c["p"] = 3; }, kUnimplemented, "p: 3 is not supported; expected 2 or 4"},
      {"activation", [](json& c) { c["hidden_act"] = "relu"; }, kUnimplemented,
       "hidden_act: \"relu\" is not supported"},
      {"norm", [](json& c) { c["norm_type"] = "rms_norm"; }, kUnimplemented, "norm_type: \"rms_norm\""},
      {"layer types",
       [](json& c) {
         c["layer_types"] = {"full_attention", "sliding_attention"};
       },
       kUnimplemented, "layer_types: \"sliding_attention\""},
      {"quantised",
       [](json& c) {
         c["quantization_config"] = {{"bits", 4}};
       },
       kUnimplemented, "quantization_config"},
  };
  for (const Refused& refused : powercoder) ExpectRefused(TinyPowerCoderConfig(), refused);
  ExpectRefused(TinyBrumbyConfig(), {"attention_bias", [](json& c) { c["attention_bias"] = true; }, kUnimplemented,
                                     "attention_bias: true"});
}

TEST(Config, ValuesThatCannotBe_AreRefusedWithTheirRange) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const Refused powercoder[] = {
      {"missing", [](json& c) { c.erase("hidden_size"); }, kInvalid,
       "hidden_size: missing; expected an integer from 1"},
      {"string", [](json& c) { c["hidden_size"] = "8"; }, kInvalid, "hidden_size: \"8\"; expected an integer"},
      {"fraction", [](json& c) { c["num_hidden_layers"] = 2.5; }, kInvalid,
       "num_hidden_layers: 2.5; expected an integer"},
      {"zero", [](json& c) { c["num_hidden_layers"] = 0; }, kInvalid,
       "num_hidden_layers: 0; expected an integer from 1"},
      {"negative", [](json& c) { c["vocab_size"] = -5; }, kInvalid, "vocab_size: -5; expected"},
      {"huge", [](json& c) { c["vocab_size"] = 18446744073709551615u; }, kInvalid, "vocab_size: 18446744073709551615"},
      {"heads do not divide",
       [](json& c) {
         c["num_attention_heads"] = 4;
         c["num_key_value_heads"] = 3;
       },
       kInvalid, "num_key_value_heads: 3; expected a divisor of num_attention_heads, 4"},
      {"hidden does not divide", [](json& c) { c["hidden_size"] = 9; }, kInvalid,
       "hidden_size: 9; expected a multiple of num_attention_heads, 2"},
      {"odd head", [](json& c) { c["head_dim"] = 3; }, kInvalid, "head_dim: 3; expected an even number from 2 to 256"},
      {"large head", [](json& c) { c["head_dim"] = 258; }, kInvalid, "head_dim: 258; expected"},
      {"chunk", [](json& c) { c["chunk_size"] = 0; }, kInvalid, "chunk_size: 0; expected an integer from 1 to 65536"},
      {"switch-over", [](json& c) { c["switch_over_seq_len"] = -1; }, kInvalid, "switch_over_seq_len: -1; expected"},
      {"theta", [](json& c) { c["rope_theta"] = 0; }, kInvalid, "rope_theta: 0; expected a number above 0"},
      {"epsilon", [](json& c) { c["norm_epsilon"] = -1e-5; }, kInvalid,
       "norm_epsilon: -1e-05; expected a number above 0"},
      {"bool", [](json& c) { c["use_bias"] = 1; }, kInvalid, "use_bias: 1; expected true or false"},
      {"eos text", [](json& c) { c["eos_token_id"] = "</s>"; }, kInvalid,
       "eos_token_id: \"</s>\"; expected a token id"},
      {"bos list",
       [](json& c) {
         c["bos_token_id"] = {1, 2};
       },
       kInvalid, "bos_token_id: a list of several; expected one"},
      {"contradiction", [](json& c) { c["model_type"] = "brumby"; }, kInvalid,
       "architectures: [\"PowerCoderForCausalLM\"]; expected the architecture of model_type \"brumby\""},
  };
  for (const Refused& refused : powercoder) ExpectRefused(TinyPowerCoderConfig(), refused);
}

TEST(Config, GenerationDefaultsOutOfRange_NameFileKeyAndRange) {
  for (const auto& [key, value] : std::vector<std::pair<std::string, json>>{{"temperature", -1},
                                                                            {"top_p", 0},
                                                                            {"top_p", 1.5},
                                                                            {"min_p", 2},
                                                                            {"repetition_penalty", 0},
                                                                            {"top_k", 1.5}}) {
    const absl::Status status = Read(TinyPowerCoderConfig(), json{{key, value}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << key << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("generation_config.json: " + key + ": "));
  }
}

TEST(Config, MalformedFiles_AreRefused) {
  TempDir dir;
  EXPECT_EQ(ReadConfig(dir.path()).status().code(), absl::StatusCode::kNotFound);
  for (const char* text : {"", "{", "[]", "{\"p\":2,\"p\":4}", "\xff", "{} {}", "null"}) {
    WriteFile(dir / "config.json", text);
    EXPECT_EQ(ReadConfig(dir.path()).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  WriteFile(dir / "config.json", TinyPowerCoderConfig().dump());
  WriteFile(dir / "generation_config.json", "{");
  const absl::Status status = ReadConfig(dir.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("generation_config.json"));
}

}  // namespace
}  // namespace statehouse
