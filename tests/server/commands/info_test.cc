#include "server/commands/info.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace statehouse {
namespace {

using testing::HasSubstr;

// A directory with the published sizes of PowerCoder-3B.
std::filesystem::path PowerCoder3B(const std::string& more = "") {
  const std::filesystem::path dir = testing::TempDir() + "/info_powercoder_3b";
  std::filesystem::create_directories(dir);
  std::ofstream(dir / "config.json")
      << R"({"model_type": "powercoder", "architectures": ["PowerCoderForCausalLM"], "hidden_size": 3072,
    "intermediate_size": 12288, "num_hidden_layers": 30, "num_attention_heads": 24, "num_key_value_heads": 2, "vocab_size": 49152,
    "norm_epsilon": 1e-5, "rope_theta": 10000, "hidden_act": "gelu_pytorch_tanh", "use_bias": true, "max_position_embeddings": 16384,
    "tie_word_embeddings": true)"
      << more << "}";
  return dir;
}

TEST(DescribeCheckpoint, PowerCoder3B_HasTheFiguresOfThePaper) {
  const auto info = DescribeCheckpoint(PowerCoder3B(), 80'000'000'000, 0);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_NEAR(static_cast<double>(info->parameters), 3.03e9, 0.02e9);
  EXPECT_EQ(info->state_f32_bytes, int64_t{30} * 2 * 8256 * 129 * 4);
  EXPECT_EQ(info->kv_bytes_per_token, 30'720);
  EXPECT_NEAR(static_cast<double>(info->break_even_f32), 8.3e3, 50);
  EXPECT_NEAR(static_cast<double>(info->break_even_bf16), 4.2e3, 50);
  EXPECT_NEAR(info->linear_flops, 5.76e9, 0.01e9);
  EXPECT_NEAR(info->retention_flops, 1.69e9, 0.02e9);
  EXPECT_GE(info->slot_bytes, info->state_f32_bytes + info->tail_bytes);
  EXPECT_LT(info->slot_bytes, (info->state_f32_bytes + info->tail_bytes) * 11 / 10);
  EXPECT_EQ(info->switch_over % info->config.chunk, 0);
}

TEST(DescribeCheckpoint, LittleMemory_FitsNothing) {
  const auto info = DescribeCheckpoint(PowerCoder3B(), 4'000'000'000, 0);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->fits[0].sequences, -1) << "12 GB of float32 weights";
  EXPECT_GT(info->fits[2].sequences, 0) << "3.2 GB of int8 weights";
  EXPECT_THAT(InfoText(*info), HasSubstr("does not fit"));
  const auto json = nlohmann::json::parse(InfoJson(*info));
  EXPECT_EQ(json["fits"][0]["weights_fit"], false);
  EXPECT_EQ(json["fits"][0]["sequences"], 0);
}

TEST(DescribeCheckpoint, MoreMemory_FitsMoreSequencesByTheSlot) {
  const auto small = DescribeCheckpoint(PowerCoder3B(), 20'000'000'000, 0);
  const auto large = DescribeCheckpoint(PowerCoder3B(), 20'000'000'000 + 10 * small->slot_bytes, 0);
  ASSERT_TRUE(large.ok());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(large->fits[i].sequences, small->fits[i].sequences + 10);
}

TEST(DescribeCheckpoint, NoDirectory_IsNotFoundByName) {
  const auto info = DescribeCheckpoint("/no/such/dir", 1, 0);
  EXPECT_EQ(info.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(info.status().message()), HasSubstr("/no/such/dir"));
}

}  // namespace
}  // namespace statehouse
