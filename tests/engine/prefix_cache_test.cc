// Requests that share beginnings through the prefix cache: the same bits as without it, less work, nothing between
// principals, a bounded memory.
#include "engine/state/prefix_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "kernels/parallel/thread_pool.h"
#include "models/model.h"
#include "tests/engine/engine_fixture.h"

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
  void MakeEngine(int64_t slots, int64_t rows) {
    EngineOptions options;
    options.max_num_seqs = slots;
    options.max_num_batched_tokens = rows;
    FakeModelOptions model;
    model.may_be_taken_back = true;
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

// A tier below that does what a test says.
class FakeVault final : public SnapshotVault {
 public:
  absl::Status Keep(const std::string& key, std::shared_ptr<const Snapshot> snapshot, bool) override {
    if (full) return absl::ResourceExhaustedError("full");
    kept[key] = std::move(snapshot);
    return absl::OkStatus();
  }
  absl::Status Flush(const std::string&, bool, absl::Time) override { return absl::OkStatus(); }
  absl::StatusOr<Fetched> Fetch(const std::string& key, bool) override {
    ++fetches;
    if (!broken.ok()) return broken;
    const auto found = kept.find(key);
    if (found == kept.end()) return absl::NotFoundError("no such snapshot");
    Fetched fetched;
    fetched.snapshot = found->second;
    fetched.tier = Tier::kDisk;
    return fetched;
  }
  Tier Where(const std::string& key) const override { return kept.contains(key) ? Tier::kDisk : Tier::kNone; }
  absl::Status Drop(const std::string& key, Removed*) override {
    kept.erase(key);
    return absl::OkStatus();
  }
  absl::Status Verify(const std::string&, Tier) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<BlobInfo>> List(Tier, const std::string&, int64_t) override {
    return std::vector<BlobInfo>();
  }
  std::array<TierTotals, kNumTiers> totals() const override { return {}; }

  std::map<std::string, std::shared_ptr<const Snapshot>> kept;
  absl::Status broken;
  bool full = false;
  int fetches = 0;
};

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

TEST_F(PrefixTierTest, TierThatTakesNoMore_MeansEvicted) {
  MakeSmallCache();
  vault_.full = true;
  ServeAll(8);
  EXPECT_GT(cache_->totals().kept.evictions, 0);
  EXPECT_EQ(cache_->totals().kept.spilled, 0);
  EXPECT_EQ(Serve(MakePrompt(100, 0)).report.miss, MissReason::kEvicted);
}

// On a real model: whatever is shared, the bits are those of an engine that computes each request alone from scratch.
class PrefixBitsTest : public ::testing::Test {
 protected:
  static constexpr int32_t kVocab = 300;

  std::unique_ptr<Request> RandomRequest(std::mt19937* random, const std::vector<Tokens>& roots) {
    std::mt19937& draw = *random;
    Tokens prompt = roots[draw() % roots.size()];
    // Parting anywhere, or where others part too.
    const size_t size = prompt.size();
    prompt.resize(draw() % 2 == 0 ? 1 + draw() % size : std::max<size_t>(1, size * (1 + draw() % 4) / 4));
    if (draw() % 4 != 0) prompt = Join(std::move(prompt), MakePrompt(1 + draw() % 40, draw() % 6, kVocab));
    auto request = MakeRequest(std::move(prompt), 1 + draw() % 24);
    request->sampling.seed = draw();
    request->sampling.temperature = draw() % 4 == 0 ? 0 : 1.1;
    if (draw() % 3 == 0) request->sampling.repetition_penalty = 1.2;
    if (draw() % 3 == 0) request->sampling.presence_penalty = 0.5;
    request->num_logprobs = 2;
    request->n = draw() % 4 == 0 ? 1 + draw() % 3 : 1;
    request->priority = static_cast<int32_t>(draw() % 3);
    return request;
  }

  static void ExpectSameBits(const ReadStream& cached, const ReadStream& alone) {
    ASSERT_EQ(cached.outputs.size(), alone.outputs.size());
    for (size_t output = 0; output < alone.outputs.size(); ++output) {
      const ReadOutput& ours = cached.outputs[output];
      const ReadOutput& theirs = alone.outputs[output];
      ASSERT_EQ(ours.tokens, theirs.tokens) << "output " << output;
      ASSERT_EQ(std::memcmp(ours.logprobs.data(), theirs.logprobs.data(), ours.logprobs.size() * sizeof(float)), 0);
      for (size_t idx = 0; idx < ours.events.size(); ++idx) {
        ASSERT_EQ(ours.events[idx].top[1].token, theirs.events[idx].top[1].token);
        ASSERT_EQ(std::memcmp(&ours.events[idx].top[1].logprob, &theirs.events[idx].top[1].logprob, sizeof(float)), 0);
      }
    }
  }

  static ReadStream Alone(Model* model, const Request& request) {
    auto engine = Engine::Create(model, nullptr, {.max_num_seqs = 3, .max_num_batched_tokens = 512}).value();
    auto stream = engine->Submit(std::make_unique<Request>(request)).value();
    ReadStream read;
    while (!read.done) {
      engine->RunStep();
      Drain(stream.get(), &read);
    }
    return read;
  }

  struct Running {
    Request request;
    std::unique_ptr<PrefixCache::Use> use;
    std::shared_ptr<EventStream> stream;
    ReadStream read;
  };

  // Returns the tokens that were restored.
  int64_t RunWorkload(Model* model, uint32_t seed, int num_requests) {
    std::mt19937 random(seed);
    auto engine = Engine::Create(model, nullptr,
                                 {.max_num_seqs = 1 + static_cast<int64_t>(random() % 5),
                                  .max_num_batched_tokens = random() % 2 == 0 ? 16 : 200})
                      .value();
    const int64_t snapshot_bytes = engine->GetStatus().slot_bytes;
    FakeVault vault;
    PrefixCache cache({.memory_bytes = snapshot_bytes * (random() % 2 == 0 ? 12 : 100),
                       .vault = random() % 2 == 0 ? &vault : nullptr},
                      *model);
    std::vector<Tokens> roots;
    for (int root = 0; root < 4; ++root) roots.push_back(MakePrompt(30 + random() % 220, 50 + root, kVocab));
    std::vector<std::unique_ptr<Running>> running;
    int64_t cached_tokens = 0;
    for (int submitted = 0; submitted < num_requests || !running.empty();) {
      if (submitted < num_requests && random() % 3 != 0) {
        auto next = std::make_unique<Running>();
        auto request = RandomRequest(&random, roots);
        next->request = *request;
        const int64_t size = static_cast<int64_t>(request->prompt.size());
        const std::vector<int64_t> points = {1 + static_cast<int64_t>(random() % size)};
        next->use = cache.Begin(
            {.points = std::span<const int64_t>(points).first(random() % 2), .will_go_on = random() % 2 == 0},
            request.get());
        next->stream = engine->Submit(std::move(request)).value();
        running.push_back(std::move(next));
        ++submitted;
      }
      engine->RunStep();
      for (size_t idx = 0; idx < running.size();) {
        Running& one = *running[idx];
        Drain(one.stream.get(), &one.read);
        if (!one.read.done) {
          ++idx;
          continue;
        }
        ExpectSameBits(one.read, Alone(model, one.request));
        EXPECT_EQ(one.stream->usage().cached_tokens, one.use->report().cached_tokens);
        cached_tokens += one.stream->usage().cached_tokens;
        if (::testing::Test::HasFatalFailure()) {
          ADD_FAILURE() << "seed " << seed << ", prompt of " << one.request.prompt.size() << ": "
                        << one.use->report().Explanation();
          return cached_tokens;
        }
        one.use->Keep(one.use->wants_answer() ? one.read.outputs[0].tokens : Tokens());
        // What was answered may come again, as the beginning of a longer prompt.
        if (random() % 4 == 0) {
          roots[random() % roots.size()] = Join(one.request.prompt, one.read.outputs[0].tokens);
        }
        running.erase(running.begin() + static_cast<ptrdiff_t>(idx));
      }
    }
    return cached_tokens;
  }
};

TEST_F(PrefixBitsTest, RandomWorkloadsWithBatchMates_GiveTheBitsOfRequestsComputedAlone) {
  kernels::ThreadPool pool(2);
  int64_t requests = 0, cached_tokens = 0;
  for (const char* golden : {"powercoder-tiny", "brumby-tiny"}) {
    for (const int64_t switch_over : {int64_t{0}, int64_t{48}, kernels::kSwitchOverAuto}) {
      LoadOptions load;
      load.chunk = 16;
      load.switch_over = switch_over;
      auto model = LoadModel(absl::StrCat(STATEHOUSE_SOURCE_DIR "/tests/golden/models/", golden), load, &pool);
      ASSERT_TRUE(model.ok()) << model.status();
      for (uint32_t seed = 1; seed <= 2; ++seed) {
        SCOPED_TRACE(absl::StrCat(golden, ", switch-over ", switch_over));
        cached_tokens += RunWorkload(model->get(), seed, 60);
        requests += 60;
        if (HasFailure()) return;
      }
    }
  }
  std::printf("%lld requests, %lld prompt tokens restored, all bits those of requests computed alone\n",
              static_cast<long long>(requests), static_cast<long long>(cached_tokens));
  EXPECT_GT(cached_tokens, 10 * requests) << "the workloads shared too little to prove anything";
}

}  // namespace
}  // namespace statehouse::testing
