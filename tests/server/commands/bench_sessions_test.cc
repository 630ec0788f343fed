// What `bench sessions` measures: on a small model with random weights, every move there and back, and what a prefix
// cache saves.
#include "server/commands/bench_sessions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/state/folder_blobs.h"
#include "models/model.h"
#include "server/commands/made_up_snapshot.h"
#include "tests/server/commands/small_model.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

class SessionsBenchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = ::testing::TempDir() + "/bench_sessions_test";
    std::filesystem::remove_all(dir_);
    auto model = testing::LoadSmallModel(dir_, &pool_);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    auto disk = FolderBlobs::Open(FileLayer::Posix(), (dir_ / "disk").string(), "disk", false);
    ASSERT_TRUE(disk.ok()) << disk.status();
    disk_ = *std::move(disk);
    options_.contexts = {20, 200, 2008};
    options_.step_tokens = 64;
    options_.min_runs = 3;
    options_.max_seconds = 0;
    options_.requests = 40;
  }
  ~SessionsBenchTest() override { std::filesystem::remove_all(dir_); }

  std::filesystem::path dir_;
  kernels::ThreadPool pool_{1};
  std::unique_ptr<Model> model_;
  std::unique_ptr<FolderBlobs> disk_;
  SessionsBenchOptions options_;
};

TEST_F(SessionsBenchTest, EveryMoveOfEveryTier_IsMeasuredAtEveryContext) {
  auto report =
      RunSessionsBench(model_.get(), 0, options_, {.disk = disk_.get(), .disk_folder = (dir_ / "disk").string()}, {});
  ASSERT_TRUE(report.ok()) << report.status();
  std::map<int64_t, std::set<std::string>> moves;
  std::map<std::string, std::vector<int64_t>> bytes;
  for (const MoveFigure& figure : report->moves) {
    moves[figure.context].insert(figure.move + " " + figure.tier);
    bytes[figure.move].push_back(figure.bytes);
    EXPECT_GE(figure.runs, 3);
    EXPECT_GT(figure.min, 0);
    EXPECT_LE(figure.min, figure.median);
    EXPECT_GT(figure.ceiling, 0);
  }
  const std::set<std::string> all = {"save slot",   "restore slot", "fork slot", "export host",
                                     "import host", "write disk",   "read disk", "reread disk"};
  for (const int64_t context : options_.contexts) EXPECT_EQ(moves[context], all) << context;
  // Below the switch-over what exists; past it the same at any length, but for the token ids of a file. (The last two
  // contexts have as many rows in their tails.)
  EXPECT_LT(bytes["save"][0], bytes["save"][1]);
  EXPECT_EQ(bytes["save"][1], bytes["save"][2]);
  EXPECT_NEAR(static_cast<double>(bytes["write"][2] - bytes["write"][1]), 4 * 1808, 512);

  ASSERT_EQ(report->first_tokens.size(), 3u);
  const FirstTokenFigure& longest = report->first_tokens.back();
  EXPECT_GT(longest.prefill, longest.host) << "restoring took longer than computing 2008 tokens";
  EXPECT_GT(longest.prefill, report->first_tokens.front().prefill) << "of 2008 tokens against 20";
  EXPECT_GT(longest.disk, 0);
  EXPECT_GT(report->first_tokens.front().prefill, 0);
  EXPECT_GT(report->first_tokens.front().host, 0);
}

TEST_F(SessionsBenchTest, MadeUpStates_MoveLikeComputedOnes) {
  auto computed = RunSessionsBench(model_.get(), 0, options_, {.disk = disk_.get()}, {});
  ASSERT_TRUE(computed.ok()) << computed.status();
  options_.made_up_states = true;
  auto made_up = RunSessionsBench(model_.get(), 0, options_, {.disk = disk_.get()}, {});
  ASSERT_TRUE(made_up.ok()) << made_up.status();
  ASSERT_EQ(made_up->moves.size(), computed->moves.size());
  for (size_t idx = 0; idx < made_up->moves.size(); ++idx) {
    EXPECT_EQ(made_up->moves[idx].move, computed->moves[idx].move);
    EXPECT_NEAR(static_cast<double>(made_up->moves[idx].bytes), static_cast<double>(computed->moves[idx].bytes), 64)
        << made_up->moves[idx].move << " at " << made_up->moves[idx].context;
  }
  EXPECT_TRUE(made_up->first_tokens.empty());
  EXPECT_THAT(SessionsBenchText(*made_up), HasSubstr("time at 2008 tokens against 200"));
}

TEST_F(SessionsBenchTest, Workloads_AreTheSameForEachPolicy_AndTheCacheRestoresMost) {
  const auto figures = MeasureWorkloads(model_.get(), options_, {});
  ASSERT_TRUE(figures.ok()) << figures.status();
  ASSERT_EQ(figures->size(), 6u);
  for (const size_t first : {size_t{0}, size_t{3}}) {
    const WorkloadFigure& none = (*figures)[first];
    const WorkloadFigure& newest = (*figures)[first + 1];
    const WorkloadFigure& ours = (*figures)[first + 2];
    EXPECT_EQ(none.prompt_tokens, newest.prompt_tokens);
    EXPECT_EQ(none.prompt_tokens, ours.prompt_tokens);
    EXPECT_EQ(none.cached_tokens, 0);
    EXPECT_GT(newest.cached_tokens, 0);
    EXPECT_GE(ours.cached_tokens, newest.cached_tokens) << ours.name;
    EXPECT_LE(ours.first_token_p50, ours.first_token_p95);
  }
}

TEST_F(SessionsBenchTest, Report_IsATableAndJsonAndAPlot) {
  options_.requests = 5;
  options_.contexts = {20, 100};
  auto report = RunSessionsBench(model_.get(), 0, options_, {.disk = disk_.get()}, {});
  ASSERT_TRUE(report.ok()) << report.status();
  report->model = "small";
  const std::string text = SessionsBenchText(*report);
  EXPECT_THAT(text, HasSubstr("restore  slot"));
  EXPECT_THAT(text, HasSubstr("conversations"));
  EXPECT_THAT(text, HasSubstr("memory by purpose"));
  const auto json = nlohmann::json::parse(SessionsBenchJson(*report, options_));
  EXPECT_EQ(json["benchmark"], "sessions");
  EXPECT_EQ(json["moves"].size(), 14u);
  EXPECT_EQ(json["workloads"].size(), 6u);
  EXPECT_GT(json["moves"][0]["share_of_tier"], 0);
  EXPECT_GT(json["memory_bytes"]["slots"], 0);
  EXPECT_THAT(SessionsBenchPlot(*report), HasSubstr("restored from disk"));
}

TEST_F(SessionsBenchTest, MovesThroughPageLockedMemory_AreMeasured_AndGiveItBack) {
  struct CountingLocker final : PageLocker {
    absl::Status Lock(std::span<std::byte>) override { return ++num_locked, absl::OkStatus(); }
    void Unlock(std::span<std::byte>) override { --num_locked; }
    int num_locked = 0;
  };
  const auto locker = std::make_shared<CountingLocker>();
  const SlotShape shape = {model_->retention(), model_->config().num_layers};
  {
    const auto memory = SnapshotMemory::Make({.block_bytes = shape.bytes(), .num_blocks = 3}, locker);
    ASSERT_EQ(locker->num_locked, 3);
    const auto snapshot = MadeUpSnapshot(shape, model_->config().vocab_size, 2008);
    ASSERT_TRUE(snapshot.ok()) << snapshot.status();
    std::vector<MoveFigure> figures;
    const absl::Status status = MeasureMoves(model_.get(), memory.get(), **snapshot, Fingerprint::Of(*model_, 0),
                                             options_, {.disk = disk_.get()}, &figures);
    ASSERT_TRUE(status.ok()) << status;
    std::set<std::string> moves;
    for (const MoveFigure& figure : figures) moves.insert(figure.move);
    EXPECT_EQ(moves, (std::set<std::string>{"restore", "save", "fork", "export", "import", "write", "reread"}));
    EXPECT_EQ(memory->totals().free_bytes, memory->locked_bytes());
    EXPECT_EQ(memory->totals().no_block, 0);
  }
  EXPECT_EQ(locker->num_locked, 0);
}

TEST_F(SessionsBenchTest, OptionsOutOfRange_AreNamed) {
  const auto error = [](const SessionsBenchOptions& options) { return std::string(Validate(options).message()); };
  EXPECT_EQ(error(SessionsBenchOptions()), "");
  EXPECT_THAT(error({.contexts = {}}), HasSubstr("--context"));
  EXPECT_THAT(error({.contexts = {100, 100}}), HasSubstr("ascend"));
  EXPECT_THAT(error({.contexts = {0}}), HasSubstr("--context: 0"));
  EXPECT_THAT(error({.step_tokens = 0}), HasSubstr("--step-tokens"));
  EXPECT_THAT(error({.min_runs = 0}), HasSubstr("--min-runs"));
  EXPECT_THAT(error({.cache_states = 2}), HasSubstr("--cache-states"));
}

}  // namespace
}  // namespace statehouse
