#include "models/retention_plan.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace statehouse {
namespace {

using kernels::kNeverSwitch;
using ::testing::HasSubstr;

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

int64_t SwitchOverOf(const ModelConfig& config, const RetentionFlags& flags) {
  const auto layout = PlanRetention(config, flags);
  EXPECT_TRUE(layout.ok()) << layout.status();
  return layout.ok() ? layout->shape().switch_over : -1;
}

void ExpectRefused(const ModelConfig& config, const RetentionFlags& flags, const std::string& message) {
  const absl::Status status = PlanRetention(config, flags).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

TEST(RetentionPlan, Auto_IsTheLongestRowsThatFitInTheState) {
  // D (d + 1) floats of state against 2 d + 1 of a row: 2080 · 65 / 129 = 1048 rows, 65 chunks of 16.
  const int64_t switch_over = SwitchOverOf(Config(64, 2, 16), {});
  EXPECT_EQ(switch_over % 16, 0);
  EXPECT_GE(switch_over, 960);
  EXPECT_LE(switch_over, 1056);
}

TEST(RetentionPlan, BoundOfTheConfig_IsRoundedDownToAChunk) {
  ModelConfig config = Config(64, 2, 16);
  config.switch_over_bound = 100;
  EXPECT_EQ(SwitchOverOf(config, {}), 96);
  EXPECT_EQ(SwitchOverOf(config, {.chunk = 64}), 64);
  EXPECT_EQ(SwitchOverOf(config, {.chunk = 128}), 0);
  config.switch_over_bound = 1 << 20;
  EXPECT_EQ(SwitchOverOf(config, {}), SwitchOverOf(Config(64, 2, 16), {}));
}

TEST(RetentionPlan, ExplicitLength_WinsOverTheBoundAndMustBeAMultipleOfTheChunk) {
  ModelConfig config = Config(64, 2, 16);
  config.switch_over_bound = 96;
  EXPECT_EQ(SwitchOverOf(config, {.switch_over = 160}), 160);
  EXPECT_EQ(SwitchOverOf(config, {.switch_over = 0}), 0);
  ExpectRefused(config, {.switch_over = 100},
                "--switch-over 100: expected a multiple of the chunk length 16; the nearest are 96 and 112");
  ExpectRefused(config, {.switch_over = -7}, "the nearest are 0 and 16");
}

TEST(RetentionPlan, Degree4WithSmallHeads_HasAState) {
  EXPECT_GT(SwitchOverOf(Config(16, 4, 16), {}), 0);
  EXPECT_LT(SwitchOverOf(Config(32, 4, 16), {}), kNeverSwitch);
}

TEST(RetentionPlan, Degree4WithLargeHeads_NeedsABoundOnItsTail) {
  const ModelConfig config = Config(64, 4, 16);
  ExpectRefused(config, {}, "--max-tail-tokens 0: degree 4 with head size 64 has no state form");
  ExpectRefused(config, {}, "for example 8192");
  ExpectRefused(config, {.switch_over = 64, .max_tail_tokens = 100}, "--switch-over 64: degree 4 with head size 64");
  const auto layout = PlanRetention(config, {.max_tail_tokens = 100});
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_FALSE(layout->has_state());
  EXPECT_EQ(layout->shape().max_tail_tokens, 100);
}

TEST(RetentionPlan, LengthsBeyondAnyMemory_AreRefusedBeforeTheyOverflow) {
  ExpectRefused(Config(64, 4, 16), {.max_tail_tokens = int64_t{1} << 40},
                "--max-tail-tokens 1099511627776: expected at most");
  ExpectRefused(Config(64, 2, 16), {.switch_over = int64_t{1} << 40}, "--switch-over 1099511627776: expected at most");
  ModelConfig huge = Config(256, 4, 16);
  huge.heads_q = huge.heads_kv = 4096;
  huge.num_layers = 4096;
  ExpectRefused(huge, {.max_tail_tokens = int64_t{1} << 32}, "more than 2^63 bytes");
}

}  // namespace
}  // namespace statehouse
