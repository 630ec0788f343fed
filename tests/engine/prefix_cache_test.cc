// Requests that share beginnings through the prefix cache: the same bits as without it, less work, nothing between
// principals, a bounded memory.
#include "engine/state/prefix_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "absl/strings/str_cat.h"
#include "tests/engine/engine_fixture.h"
#include "tests/support/fake_vault.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;
using Tokens = std::vector<int32_t>;

Tokens Join(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class PrefixCacheTest : public EngineTest {
 protected:
  void MakeEngine(int64_t slots, int64_t rows, bool is_batch_invariant = true) {
    EngineOptions options;
    options.max_num_seqs = slots;
    options.max_num_batched_tokens = rows;
    FakeModelOptions model;
    model.may_be_taken_back = true;
    model.is_batch_invariant = is_batch_invariant;
    EngineTest::MakeEngine(model, options);
  }
  void MakeCache(int64_t memory_bytes = 64 << 20, std::string salt = "") {
    cache_ = std::make_unique<PrefixCache>(PrefixCacheOptions{.memory_bytes = memory_bytes, .salt = std::move(salt)},
                                           *model_);
  }
  struct Served {
    ReadStream read;
    PrefixReport report;
    int64_t cached_tokens = 0;  // as the engine says
    int64_t rows = 0;           // computed
  };
  Served Serve(const Tokens& prompt, const PrefixWish& wish = {}, int64_t max_tokens = 4) {
    auto request = MakeRequest(prompt, max_tokens);
    const int64_t rows_before = model_->num_rows();
    auto use = cache_->Begin(wish, request.get());
    const auto stream = Submit(std::move(request));
    Served served;
    served.read = RunAndRead(stream);
    served.report = use->report();
    served.cached_tokens = stream->usage().cached_tokens;
    served.rows = model_->num_rows() - rows_before;
    use->Keep(use->wants_answer() ? served.read.outputs[0].tokens : Tokens());
    return served;
  }

  std::unique_ptr<PrefixCache> cache_;
};

TEST_F(PrefixCacheTest, ExactRepeatOfAPrompt_NeedsNoStepForItsFirstToken) {
  MakeEngine(2, 16);
  MakeCache();
  const Tokens prompt = MakePrompt(100);
  const Served first = Serve(prompt, {}, 1);
  EXPECT_EQ(first.cached_tokens, 0);
  EXPECT_EQ(first.report.miss, MissReason::kNothing);
  EXPECT_EQ(first.report.Explanation(), "restored none of 100 tokens; no earlier prompt begins like this one");
  const Served second = Serve(prompt, {}, 1);
  EXPECT_EQ(second.rows, 0);
  EXPECT_EQ(second.cached_tokens, 100);
  EXPECT_EQ(second.report.tier, Tier::kHost);
  EXPECT_EQ(second.report.Explanation(), "restored 100 of 100 tokens from host memory");
  EXPECT_EQ(second.read.outputs[0].tokens, first.read.outputs[0].tokens);
}

TEST_F(PrefixCacheTest, ModelThatIsNotBatchInvariant_IsSaidToContinue) {
  MakeEngine(2, 16, /*is_batch_invariant=*/false);
  MakeCache();
  const Tokens prompt = MakePrompt(100);
  EXPECT_EQ(Serve(prompt, {}, 1).report.exactness, Exactness::kExact);
  const Served second = Serve(prompt, {}, 1);
  EXPECT_EQ(second.report.exactness, Exactness::kContinued);
  EXPECT_NE(second.report.Explanation().find("continued: "), std::string::npos);
  EXPECT_NE(second.report.Explanation().find("--deterministic"), std::string::npos);
}

TEST_F(PrefixCacheTest, SharedBeginning_IsComputedOnceWhereItIsKnownToBranch) {
  MakeEngine(2, 16);
  MakeCache();
  const Tokens system = MakePrompt(100, 1);
  Serve(Join(system, MakePrompt(30, 2)));
  const Served second = Serve(Join(system, MakePrompt(30, 3)));
  EXPECT_EQ(second.report.miss, MissReason::kNoSnapshot);
  EXPECT_EQ(second.report.matched_tokens, 100);
  const Served third = Serve(Join(system, MakePrompt(30, 4)));
  EXPECT_EQ(third.cached_tokens, 100);
  EXPECT_EQ(third.report.miss, MissReason::kDiverged);
  EXPECT_EQ(third.report.Explanation(),
            "restored 100 of 130 tokens from host memory; at token 100 it parts from every earlier prompt");
  EXPECT_EQ(third.rows, 30 + 3);
}

TEST_F(PrefixCacheTest, LongPrompt_HasSnapshotsOnTheWay) {
  MakeEngine(2, 64);
  MakeCache();
  const Tokens prompt = MakePrompt(3000, 1);
  Serve(prompt);
  for (const int64_t same : {70, 200, 500, 1000, 2900}) {
    const Served again = Serve(Join(Tokens(prompt.begin(), prompt.begin() + same), MakePrompt(20, 9)));
    EXPECT_GE(again.cached_tokens, same / 4) << same;
  }
}

TEST_F(PrefixCacheTest, PointsThatARequestNames_AreKept) {
  MakeEngine(2, 16);
  MakeCache();
  const Tokens prompt = MakePrompt(120, 1);
  const std::vector<int64_t> points = {70, 90};
  Serve(prompt, {.points = points});
  EXPECT_EQ(Serve(Join(Tokens(prompt.begin(), prompt.begin() + 90), MakePrompt(20, 9))).cached_tokens, 90);
  EXPECT_EQ(Serve(Join(Tokens(prompt.begin(), prompt.begin() + 71), MakePrompt(20, 8))).cached_tokens, 70);
}

TEST_F(PrefixCacheTest, Conversation_GoesOnFromItsLastAnswer) {
  MakeEngine(2, 16);
  MakeCache();
  Tokens talk = MakePrompt(50, 1);
  int64_t rows = 0;
  for (int turn = 0; turn < 6; ++turn) {
    const Served served = Serve(talk, {.will_go_on = true}, 10);
    rows += served.rows;
    EXPECT_EQ(served.report.miss, turn == 0 ? MissReason::kNothing : MissReason::kDiverged) << turn;
    talk = Join(Join(talk, served.read.outputs[0].tokens), MakePrompt(15, 100 + turn));
  }
  EXPECT_EQ(rows, static_cast<int64_t>(talk.size()) - 15 - 1) << "no token was computed twice";
}

TEST_F(PrefixCacheTest, SeveralOutputs_StartFromTheSamePrefix) {
  MakeEngine(3, 16);
  MakeCache();
  const Tokens prompt = MakePrompt(60, 1);
  Serve(prompt);
  auto request = MakeRequest(prompt, 5);
  request->n = 3;
  auto use = cache_->Begin({.will_go_on = true}, request.get());
  EXPECT_FALSE(use->wants_answer()) << "which of the three would go on?";
  const auto stream = Submit(std::move(request));
  RunAndRead(stream);
  EXPECT_EQ(stream->usage().cached_tokens, 60);
}

TEST_F(PrefixCacheTest, AnotherPrincipalOrSalt_FindsWhatAnUnknownPromptFinds) {
  MakeEngine(2, 16);
  MakeCache();
  const Tokens prompt = MakePrompt(100, 1);
  const Tokens unknown = MakePrompt(100, 2);
  Serve(prompt, {.principal = "ann", .salt = "b", .will_go_on = true});
  ASSERT_EQ(Serve(prompt, {.principal = "ann", .salt = "b"}).cached_tokens, 100);
  const Served stranger = Serve(unknown, {.principal = "eve"});
  // The last three spell the same text if principal and salt are simply put together.
  const std::vector<std::pair<std::string, std::string>> others = {
      {"bob", ""}, {"bob", "b"}, {"ann", ""}, {"ann", "c"}, {"", ""}, {"annb", ""}, {"an", "nb"}, {"", "annb"}};
  for (const auto& [principal, salt] : others) {
    SCOPED_TRACE(absl::StrCat(principal, "/", salt));
    const Served served = Serve(prompt, {.principal = principal, .salt = salt});
    EXPECT_EQ(served.cached_tokens, 0);
    EXPECT_EQ(served.rows, stranger.rows) << "work, and so time, tells them apart";
    EXPECT_EQ(served.report.miss, stranger.report.miss);
    EXPECT_EQ(served.report.matched_tokens, 0);
    EXPECT_EQ(served.report.Explanation(), stranger.report.Explanation());
  }
}

TEST_F(PrefixCacheTest, MemoryIsBounded_AndWhatWasNotTakenIsCounted) {
  MakeEngine(4, 16);
  MakeCache();
  Serve(MakePrompt(100, 1));
  const int64_t one = cache_->totals().kept.bytes;
  MakeCache(5 * one);
  std::deque<std::pair<std::unique_ptr<PrefixCache::Use>, std::shared_ptr<EventStream>>> under_way;
  for (int round = 0; round < 40; ++round) {
    auto request = MakeRequest(MakePrompt(100, 10 + round), 3);
    auto use = cache_->Begin({}, request.get());
    under_way.emplace_back(std::move(use), Submit(std::move(request)));
    const PrefixCache::Totals totals = cache_->totals();
    EXPECT_LE(totals.kept.bytes + totals.taking_bytes, 5 * one + one / 2);
    if (under_way.size() < 8) continue;
    RunAndRead(under_way.front().second);
    under_way.front().first->Keep({});
    under_way.pop_front();
  }
  EXPECT_GT(cache_->totals().not_taken, 0);
  EXPECT_GT(cache_->totals().kept.snapshots, 0);
  under_way.clear();
  EXPECT_EQ(cache_->totals().taking_bytes, 0);
}

TEST_F(PrefixCacheTest, CancelledRequest_LeavesWhatItCameTo) {
  MakeEngine(1, 16);
  MakeCache();
  const Tokens prompt = MakePrompt(400, 1);
  const std::vector<int64_t> points = {100, 300};
  auto request = MakeRequest(prompt, 4);
  auto use = cache_->Begin({.points = points, .will_go_on = true}, request.get());
  const auto stream = Submit(std::move(request));
  for (int step = 0; step < 10; ++step) engine_->RunStep();
  stream->Cancel();
  const ReadStream read = RunAndRead(stream);
  use->Keep(read.outputs[0].tokens);
  const Served again = Serve(prompt);
  EXPECT_GE(again.cached_tokens, 100);
  EXPECT_LT(again.cached_tokens, 300);
  EXPECT_EQ(model_->violation(), "");
}

TEST_F(PrefixCacheTest, Bypass_SaysWhyAndIsCounted) {
  MakeEngine(1, 16);
  MakeCache();
  cache_->CountBypass();
  const PrefixReport report = {.prompt_tokens = 7, .why_bypassed = "the request says so"};
  EXPECT_EQ(report.Explanation(), "not looked up: the request says so");
  EXPECT_EQ(cache_->totals().misses[static_cast<size_t>(MissReason::kBypassed)], 1);
}

TEST_F(PrefixCacheTest, FreedSlots_AreZeroBeforeTheyServeAnother) {
  // The fake model reports a slot that is not all zero at position 0; a restored one is full before its first row.
  MakeEngine(1, 16);
  MakeCache();
  for (int round = 0; round < 30; ++round) {
    Serve(MakePrompt(20 + 40 * (round % 4), round % 3), {.principal = round % 2 == 0 ? "ann" : "bob"});
    ASSERT_EQ(model_->violation(), "") << round;
  }
  ExpectAllSlotsFree();
}

class PrefixTierTest : public PrefixCacheTest {
 protected:
  // Room for two snapshots of a prompt of 100 tokens, or three.
  void MakeSmallCache() {
    MakeEngine(2, 16);
    MakeCache();
    Serve(MakePrompt(100, 1));
    const int64_t one = cache_->totals().kept.bytes;
    cache_ = std::make_unique<PrefixCache>(PrefixCacheOptions{.memory_bytes = 4 * one, .vault = &vault_}, *model_);
  }
  void ServeAll(int count) {
    for (int idx = 0; idx < count; ++idx) Serve(MakePrompt(100, idx));
  }
  void TearDown() override {
    cache_.reset();
    EXPECT_TRUE(vault_.kept.empty()) << "snapshots that nobody will find stayed behind";
    PrefixCacheTest::TearDown();
  }

  FakeVault vault_;
};

TEST_F(PrefixTierTest, WhatHasToLeaveMemory_IsFoundInTheTierBelow) {
  MakeSmallCache();
  const Served first = Serve(MakePrompt(100, 0));
  ServeAll(8);
  EXPECT_GT(cache_->totals().kept.spilled, 0);
  EXPECT_EQ(cache_->totals().kept.evictions, 0);
  const Served again = Serve(MakePrompt(100, 0));
  EXPECT_EQ(again.cached_tokens, 100);
  EXPECT_EQ(again.report.tier, Tier::kDisk);
  EXPECT_EQ(again.report.Explanation(), "restored 100 of 100 tokens from disk");
  EXPECT_EQ(again.read.outputs[0].tokens, first.read.outputs[0].tokens);
  EXPECT_EQ(cache_->totals().hits[static_cast<size_t>(Tier::kDisk)], 1);
  // It is in memory again, and its copy below still counts.
  const int fetches = vault_.fetches;
  EXPECT_EQ(Serve(MakePrompt(100, 0)).report.tier, Tier::kHost);
  EXPECT_EQ(vault_.fetches, fetches);
}

TEST_F(PrefixTierTest, LowerSnapshotBeyondTheBranch_IsTakenBack) {
  MakeSmallCache();
  Serve(MakePrompt(100, 0));
  for (int idx = 1; idx < 8; ++idx) Serve(MakePrompt(100, idx));
  Tokens other = MakePrompt(100, 0);
  other.resize(98);
  const Served served = Serve(Join(other, MakePrompt(9, 77)));
  EXPECT_EQ(served.cached_tokens, 98);
  EXPECT_EQ(served.report.tier, Tier::kDisk);
}

TEST_F(PrefixTierTest, TierThatFails_IsAMissThatSaysSo) {
  MakeSmallCache();
  const struct {
    absl::Status status;
    MissReason reason;
    const char* words;
  } cases[] = {{absl::UnavailableError("slow"), MissReason::kTier, "could not be read"},
               {absl::DataLossError("damaged"), MissReason::kTier, "could not be read"},
               {absl::FailedPreconditionError("other"), MissReason::kRefused, "another numeric mode"},
               {absl::NotFoundError("gone"), MissReason::kEvicted, "had to make room"}};
  for (const auto& failing : cases) {
    ServeAll(8);
    vault_.broken = failing.status;
    const Served served = Serve(MakePrompt(100, 0));
    vault_.broken = absl::OkStatus();
    EXPECT_EQ(served.cached_tokens, 0) << failing.status;
    EXPECT_EQ(served.report.miss, failing.reason) << failing.status;
    EXPECT_THAT(served.report.Explanation(), HasSubstr(failing.words));
  }
}

TEST_F(PrefixTierTest, WhatIsBelowIsBounded_AndWhatLeavesItIsCountedAndRemoved) {
  MakeEngine(2, 16);
  MakeCache();
  Serve(MakePrompt(100, 1));
  const int64_t one = cache_->totals().kept.bytes;
  cache_ = std::make_unique<PrefixCache>(PrefixCacheOptions{.memory_bytes = 4 * one, .vault = &vault_}, *model_);
  EXPECT_EQ(cache_->disk_bytes(), PrefixCacheOptions::kDiskShare * 4 * one) << "by default";
  cache_ = std::make_unique<PrefixCache>(
      PrefixCacheOptions{.memory_bytes = 4 * one, .disk_bytes = 5 * one, .vault = &vault_}, *model_);
  ServeAll(40);
  EXPECT_LE(cache_->totals().kept.spilled_bytes, 5 * one);
  EXPECT_GT(cache_->totals().kept.evictions, 20);
  EXPECT_EQ(static_cast<int64_t>(vault_.kept.size()), cache_->totals().kept.spilled);
  EXPECT_EQ(Serve(MakePrompt(100, 0)).report.miss, MissReason::kEvicted);
}

TEST_F(PrefixTierTest, TierThatTakesNoMore_MeansEvicted) {
  MakeSmallCache();
  vault_.full = true;
  ServeAll(8);
  EXPECT_GT(cache_->totals().kept.evictions, 0);
  EXPECT_EQ(cache_->totals().kept.spilled, 0);
  EXPECT_EQ(Serve(MakePrompt(100, 0)).report.miss, MissReason::kEvicted);
}

}  // namespace
}  // namespace statehouse::testing
