#include "models/sizing.h"

#include "gtest/gtest.h"

namespace statehouse {
namespace {

ModelConfig Config(int head_dim, int degree, int64_t chunk) {
  ModelConfig config;
  config.heads_q = 4;
  config.heads_kv = 2;
  config.head_dim = head_dim;
  config.degree = degree;
  config.chunk = chunk;
  config.num_layers = 1;
  return config;
}

// Figures of PowerCoder-3B and Brumby-14B, as docs/retention.md states them.
ModelConfig PowerCoder3B() {
  ModelConfig config = Config(128, 2, 128);
  config.hidden_size = 3072;
  config.intermediate_size = 12288;
  config.num_layers = 30;
  config.vocab_size = 49152;
  config.heads_q = 24;
  return config;
}
ModelConfig Brumby14B() {
  ModelConfig config = Config(128, 2, 128);
  config.family = Family::kBrumby;
  config.hidden_size = 5120;
  config.intermediate_size = 17408;
  config.num_layers = 40;
  config.vocab_size = 151936;
  config.heads_q = 40;
  config.heads_kv = 8;
  config.use_bias = false;
  config.tie_embeddings = false;
  return config;
}

TEST(Sizing, PowerCoder3B_ComesToItsPublishedFigures) {
  const ModelConfig config = PowerCoder3B();
  EXPECT_NEAR(NumParameters(config), 3.03e9, 0.005e9);
  EXPECT_EQ(StateBytes(config, StateType::kF32), 30 * 2 * 8256 * 129 * 4);
  EXPECT_NEAR(StateBytes(config, StateType::kBF16), 128e6, 1e6);
  EXPECT_EQ(KvCacheBytesPerToken(config), 30720);
  EXPECT_NEAR(BreakEvenTokens(config, StateType::kF32), 8300, 50);
  EXPECT_NEAR(BreakEvenTokens(config, StateType::kBF16), 4200, 50);
  EXPECT_NEAR(LinearFlopsPerToken(config), 5.76e9, 0.005e9);
  EXPECT_NEAR(RetentionFlopsPerToken(config), 1.69e9, 0.005e9);
  EXPECT_NEAR(WeightBytes(config, kernels::WeightType::kBF16), 6.06e9, 0.01e9);
  EXPECT_NEAR(WeightBytes(config, kernels::WeightType::kInt8), 2.88e9 * 17 / 16 + 0.151e9 * 2, 0.01e9);
  EXPECT_NEAR(WeightBytes(config, kernels::WeightType::kF32), 12.12e9, 0.02e9);
}

TEST(Sizing, Brumby14B_ComesToItsPublishedFigures) {
  const ModelConfig config = Brumby14B();
  EXPECT_NEAR(NumParameters(config), 14.8e9, 0.1e9);
  EXPECT_NEAR(StateBytes(config, StateType::kF32), 1.36e9, 0.01e9);
  EXPECT_EQ(KvCacheBytesPerToken(config), 163840);
  EXPECT_EQ(HeadFlopsPerRow(config), 2.0 * 151936 * 5120);
}

TEST(Sizing, DecodeFloor_IsWeightsOncePlusStateAndTailPerSequence) {
  const ModelConfig config = PowerCoder3B();
  const int64_t one = DecodeFloorBytes(config, 1000, 1, StateType::kF32);
  EXPECT_EQ(one, 1000 + StateBytes(config, StateType::kF32) + 30 * 2 * 192 * 257 * 4);
  EXPECT_EQ(DecodeFloorBytes(config, 1000, 64, StateType::kF32), 1000 + 64 * (one - 1000));
}

TEST(Sizing, SequencesThatFit_RoundsDown) {
  EXPECT_EQ(SequencesThatFit(1000, 300), 3);
  EXPECT_EQ(SequencesThatFit(299, 300), 0);
}

TEST(Sizing, WithoutAStateForm_ThereIsNothingToBreakEven) {
  EXPECT_EQ(StateBytes(Config(64, 4, 16), StateType::kF32), 0);
  EXPECT_EQ(BreakEvenTokens(Config(64, 4, 16), StateType::kF32), 0);
}

}  // namespace
}  // namespace statehouse
