// The benchmark's own arithmetic, and that it measures what it says: on a small model with random weights.
#include "server/commands/bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "server/commands/bench_sequences.h"
#include "tests/server/commands/small_model.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

class BenchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto model = testing::LoadSmallModel(::testing::TempDir() + "/bench_test_model", &pool_);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    options_.contexts = {32, 64, 200};
    options_.batches = {1, 3};
    options_.step_tokens = 16;
    options_.min_runs = 4;
    options_.max_seconds = 0.01;
    options_.streams = 2;
    options_.long_prompt = 300;
  }

  kernels::ThreadPool pool_{1};
  std::unique_ptr<Model> model_;
  BenchOptions options_;
};

TEST_F(BenchTest, EveryContextAndBatch_HasAFigureWithAFloor) {
  int started = 0, heard = 0;
  const auto report = RunBench(model_.get(), &pool_, options_,
                               {.on_start = [&](const BenchReport&) { ++started; },
                                .on_figure = [&](const BenchFigure&) { ++heard; },
                                .on_progress = {}});
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->figures.size(), 9u);
  EXPECT_EQ(started, 1);
  EXPECT_EQ(heard, 9);
  for (const BenchFigure& figure : report->figures) {
    EXPECT_GT(figure.runs, 0);
    EXPECT_GT(figure.floor, 0);
    EXPECT_LE(figure.min, figure.median);
    EXPECT_NEAR(figure.share(), figure.floor / figure.median, 1e-12);
    EXPECT_NEAR(figure.tokens_per_s() * figure.mean, static_cast<double>(figure.rows), 1e-9);
  }
  EXPECT_EQ(report->memory[0].slot_bytes, report->memory[2].slot_bytes);
  ASSERT_TRUE(report->interference.has_value());
  EXPECT_GE(report->interference->gaps, 2 * (300 / 16)) << "each stream gets a token in each step of the prompt";
  EXPECT_LE(report->interference->gap_p50, report->interference->gap_p99);
  EXPECT_LE(report->interference->gap_p99, report->interference->gap_max);
}

TEST_F(BenchTest, DecodeBeyondTheSwitchOver_NeedsTheSameBytesAtAnyContext) {
  options_.contexts = {128, 1024};
  options_.streams = 0;
  const auto report = RunBench(model_.get(), &pool_, options_, {});
  ASSERT_TRUE(report.ok()) << report.status();
  std::vector<double> bytes;
  for (const BenchFigure& figure : report->figures) {
    if (figure.phase == BenchFigure::Phase::kDecode && figure.batch == 3) bytes.push_back(figure.bytes);
  }
  ASSERT_EQ(bytes.size(), 2u);
  EXPECT_EQ(bytes[0], bytes[1]);
}

TEST_F(BenchTest, Json_HasEveryFigureWithFloorAndShare) {
  options_.streams = 0;
  auto report = RunBench(model_.get(), &pool_, options_, {});
  ASSERT_TRUE(report.ok()) << report.status();
  report->model = "m\"1";
  const auto json = nlohmann::json::parse(BenchJson(*report, options_));
  EXPECT_EQ(json["model"], "m\"1");
  ASSERT_EQ(json["figures"].size(), 9u);
  for (const char* key : {"phase", "context", "batch", "runs", "step_median_s", "step_min_s", "tokens_per_s", "floor_s",
                          "share_of_floor"}) {
    EXPECT_TRUE(json["figures"][0].contains(key)) << key;
  }
  EXPECT_TRUE(json["interference"].is_null());
  for (const char* key : {"version", "commit", "machine", "cores"}) EXPECT_TRUE(json.contains(key)) << key;
  EXPECT_THAT(json["date"].get<std::string>(), ::testing::ContainsRegex("^20[0-9][0-9]-[0-9][0-9]-[0-9][0-9]T"));
  EXPECT_THAT(BenchPlot(*report), HasSubstr("batch 3"));
}

TEST_F(BenchTest, GrowingSequence_StaysAsItIsWhileCopiesDecode) {
  BenchSequences sequences(model_.get(), 16);
  ASSERT_TRUE(sequences.Allocate(2).ok());
  ASSERT_TRUE(sequences.CheckResult().ok());
  EXPECT_EQ(sequences.position(), 0);
  std::vector<BenchSequences::PrefillStep> steps;
  ASSERT_TRUE(sequences.PrefillTo(70, {}, &steps).ok());
  EXPECT_EQ(sequences.position(), 70);
  int64_t rows = 0;
  for (const auto& step : steps) {
    EXPECT_EQ(step.position, rows);
    EXPECT_TRUE(step.position >= 64 || step.position + step.rows <= 64) << "no step reaches across the switch-over";
    rows += step.rows;
  }
  EXPECT_EQ(rows, 70);
  std::vector<double> seconds;
  ASSERT_TRUE(sequences.Decode(2, 5, 0, {}, &seconds).ok());
  EXPECT_EQ(seconds.size(), 5u);
  EXPECT_EQ(sequences.position(), 70);
}

TEST_F(BenchTest, ImpossibleOptions_AreRefusedByFlag) {
  const auto refused = [](BenchOptions options, const char* flag) {
    const absl::Status status = Validate(options);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << flag;
    EXPECT_THAT(std::string(status.message()), HasSubstr(flag));
  };
  EXPECT_TRUE(Validate(options_).ok());
  refused({.contexts = {64, 64}}, "--context");
  refused({.contexts = {0}}, "--context");
  refused({.contexts = {}}, "--context");
  refused({.batches = {0}}, "--batch");
  refused({.step_tokens = 0}, "--step-tokens");
  refused({.min_runs = 0}, "--min-runs");
  refused({.streams = -1}, "--streams");
}

TEST(Median, OddAndEvenCounts_TakeAMiddleValue) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 2, 3}), 2);
  EXPECT_EQ(Median({}), 0);
}

}  // namespace
}  // namespace statehouse
