// Floors of a load, against sums done by hand.
#include "clients/cli/load_floor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/cli/load_bench.h"

namespace statehouse::cli {
namespace {

v1::Model MakeModel() {
  v1::Model model;
  model.set_switch_over(100);
  v1::StepCost& cost = *model.mutable_step_cost();
  cost.set_weight_bytes(1000);
  cost.set_state_bytes(200);
  cost.set_row_bytes(4);
  cost.set_linear_flops(50);
  cost.set_retention_flops(30);
  cost.set_row_flops(2);
  cost.set_head_flops(7);
  return model;
}

v1::Machine MakeMachine() {
  v1::Machine machine;
  machine.set_flops_per_second(1e6);
  for (const auto& [bytes, rate] : {std::pair(1500, 4000.0), {4000, 2000.0}}) {
    machine.add_read()->set_bytes(bytes);
    machine.mutable_read(machine.read_size() - 1)->set_bytes_per_second(rate);
  }
  return machine;
}

// Ten requests over 20 s, of which each decoded for 4 s: two at a time.
LoadReport MakeLoad(int64_t prompt, int64_t output) {
  LoadReport report;
  report.completed = 10;
  report.duration = 20;
  report.decoding_s = 40;
  report.prompt_tokens = 10 * prompt;
  report.output_tokens = 10 * output;
  report.ttft.p50 = 0.5;
  report.tpot.p50 = 1.4;
  return report;
}

TEST(LoadFloor, PastTheSwitchOver_CountsStatesAndTheRateForSoManyBytes) {
  const auto floors = FloorsOf(MakeModel(), MakeMachine(), MakeLoad(150, 20));
  ASSERT_TRUE(floors.has_value());
  EXPECT_DOUBLE_EQ(floors->sequences, 2);
  EXPECT_DOUBLE_EQ(floors->context, 160);
  EXPECT_DOUBLE_EQ(floors->bytes, 1000 + 2 * 200);
  EXPECT_DOUBLE_EQ(floors->flops, 2 * (50 + 30 + 7));
  EXPECT_DOUBLE_EQ(floors->bandwidth, 4000);
  EXPECT_DOUBLE_EQ(floors->tpot.floor, 1400.0 / 4000);
  EXPECT_DOUBLE_EQ(floors->tpot.share(), 0.25);
  // A prompt: 150 tokens of matrices, the first 100 by rows, then 50 by state, and one row of logits.
  const double prompt_s = (150 * 50 + 100 * 50 * 2 + 50 * 30 + 7) / 1e6;
  EXPECT_DOUBLE_EQ(floors->ttft.floor, prompt_s);
  EXPECT_DOUBLE_EQ(floors->ttft.measured, 0.5);
  // 10 × 19 tokens beyond the first, two a step.
  EXPECT_DOUBLE_EQ(floors->duration.floor, 10 * prompt_s + 95 * (1400.0 / 4000));
}

TEST(LoadFloor, BeforeTheSwitchOver_CountsRows) {
  const auto floors = FloorsOf(MakeModel(), MakeMachine(), MakeLoad(40, 20));
  ASSERT_TRUE(floors.has_value());
  EXPECT_DOUBLE_EQ(floors->bytes, 1000 + 2 * 50 * 4);
  EXPECT_DOUBLE_EQ(floors->flops, 2 * (50 + 50 * 2 + 7));
}

TEST(LoadFloor, MoreThanWasMeasured_TakesTheRateOfTheLargest) {
  v1::Model model = MakeModel();
  model.mutable_step_cost()->set_weight_bytes(1'000'000);
  EXPECT_DOUBLE_EQ(FloorsOf(model, MakeMachine(), MakeLoad(150, 20))->bandwidth, 2000);
}

TEST(LoadFloor, SlowArithmetic_BoundsTheStep) {
  v1::Machine machine = MakeMachine();
  machine.set_flops_per_second(100);
  EXPECT_DOUBLE_EQ(FloorsOf(MakeModel(), machine, MakeLoad(150, 20))->tpot.floor, 1.74);
}

TEST(LoadFloor, AServerThatSaysNothing_HasNone) {
  EXPECT_FALSE(FloorsOf(v1::Model(), MakeMachine(), MakeLoad(150, 20)).has_value());
  EXPECT_FALSE(FloorsOf(MakeModel(), v1::Machine(), MakeLoad(150, 20)).has_value());
  EXPECT_FALSE(FloorsOf(MakeModel(), MakeMachine(), LoadReport()).has_value());
}

TEST(LoadReportText, AServerThatCannotBeAsked_IsToldWithTheReason) {
  LoadReport report;
  EXPECT_THAT(LoadReportText({}, report), ::testing::HasSubstr("does not say what its machine can do"));
  report.server_error = "no valid token";
  EXPECT_THAT(LoadReportText({}, report), ::testing::HasSubstr("No floors: GetStatus failed: no valid token"));
  EXPECT_THAT(LoadReportJson({}, report), ::testing::HasSubstr("\"server_error\": \"no valid token\""));
}

}  // namespace
}  // namespace statehouse::cli
