// Sessions: what belongs to whom, one writer at a time, and that going back, forking and stopping change no bit.
#include "engine/sessions/session_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "kernels/parallel/thread_pool.h"
#include "models/model.h"
#include "tests/engine/engine_fixture.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;
using Tokens = std::vector<int32_t>;

SessionSpec Named(const char* principal, const char* name) {
  SessionSpec spec;
  spec.principal = principal;
  spec.name = name;
  return spec;
}

class SessionStoreTest : public ::testing::Test {
 protected:
  FakeClock clock_;
  SessionStoreOptions options_{.clock = &clock_};
};

TEST_F(SessionStoreTest, SomebodyElsesSession_IsAsIfItWereNotThere) {
  SessionStore store(options_);
  const auto made = store.Create(Named("ann", "notes"));
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->id.size(), 32u);
  const std::string never = std::string(store.Get("bob", "0123").status().message());
  for (const std::string& ref : {made->id, std::string("notes")}) {
    EXPECT_TRUE(store.Get("ann", ref).ok());
    const std::vector<absl::Status> refused = {store.Get("bob", ref).status(),
                                               store.Tokens("bob", ref).status(),
                                               store.Delete("bob", ref),
                                               store.Fork("bob", ref, {}, Named("bob", "copy")).status(),
                                               store.Rewind("bob", ref, 0, true).status(),
                                               store.BeginTurn("bob", ref, Tokens{1}, "").status(),
                                               store.SetPinned("bob", ref, true)};
    for (const absl::Status& status : refused) {
      EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
      EXPECT_EQ(std::string(status.message()).size() - ref.size(), never.size() - 4) << "the message tells them apart";
    }
  }
  EXPECT_TRUE(store.List("bob", {}, "", 100).empty());
  EXPECT_TRUE(store.Create(Named("bob", "notes")).ok()) << "names are each principal's own";
  EXPECT_EQ(store.Create(Named("ann", "notes")).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(SessionStoreTest, SecondWriter_IsAborted_AndAbandonedTurnLeavesNoTrace) {
  SessionStore store(options_);
  ASSERT_TRUE(store.Create(Named("ann", "a")).ok());
  {
    auto turn = store.BeginTurn("ann", "a", Tokens{1, 2, 3}, "");
    ASSERT_TRUE(turn.ok());
    EXPECT_EQ(store.BeginTurn("ann", "a", Tokens{4}, "").status().code(), absl::StatusCode::kAborted);
    EXPECT_EQ(store.Delete("ann", "a").code(), absl::StatusCode::kAborted);
    EXPECT_EQ(store.Rewind("ann", "a", 0, false).status().code(), absl::StatusCode::kAborted);
    EXPECT_TRUE(store.Get("ann", "a")->busy);
  }
  EXPECT_EQ(store.Get("ann", "a")->num_tokens, 0);
  EXPECT_FALSE(store.Get("ann", "a")->busy);
  EXPECT_TRUE(store.BeginTurn("ann", "a", Tokens{4}, "").ok());
}

TEST_F(SessionStoreTest, RepeatedTurn_ReturnsTheFirstOutcomeAndAppendsOnce) {
  SessionStore store(options_);
  ASSERT_TRUE(store.Create(Named("ann", "a")).ok());
  {
    auto turn = store.BeginTurn("ann", "a", Tokens{1, 2}, "key");
    ASSERT_TRUE(turn.ok());
    (*turn)->Commit({.tokens = {7, 8}, .seed = 5}, {});
  }
  auto again = store.BeginTurn("ann", "a", Tokens{1, 2}, "key");
  ASSERT_TRUE(again.ok());
  ASSERT_TRUE((*again)->repeated().has_value());
  EXPECT_EQ((*again)->repeated()->tokens, (Tokens{7, 8}));
  EXPECT_EQ((*again)->repeated()->seed, 5u);
  EXPECT_EQ((*again)->repeated()->num_tokens, 4);
  EXPECT_EQ(*store.Tokens("ann", "a"), (Tokens{1, 2, 7, 8}));
  EXPECT_EQ(FieldOf(store.BeginTurn("ann", "a", Tokens{1, 3}, "key").status()), "idempotency_key");
  clock_.Advance(absl::Hours(24));
  store.Expire();
  EXPECT_FALSE((*store.BeginTurn("ann", "a", Tokens{1, 2}, "key"))->repeated().has_value());
}

TEST_F(SessionStoreTest, TimeToLive_EndsIdleSessionsButNotPinnedOrBusyOnes) {
  SessionStore store(options_);
  for (const char* name : {"idle", "pinned", "busy", "forever"}) {
    SessionSpec spec = Named("ann", name);
    if (std::string(name) != "forever") spec.ttl = absl::Minutes(1);
    spec.pinned = std::string(name) == "pinned";
    ASSERT_TRUE(store.Create(spec).ok());
  }
  const auto turn = store.BeginTurn("ann", "busy", Tokens{1}, "");
  clock_.Advance(absl::Seconds(59));
  EXPECT_EQ(store.Expire(), 0);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(store.Expire(), 1);
  EXPECT_EQ(store.Get("ann", "idle").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store.List("ann", {}, "", 100).size(), 3u);
}

TEST_F(SessionStoreTest, Quotas_RefuseTheNextAndLoseNothing) {
  options_.max_sessions_per_principal = 2;
  SessionStore store(options_);
  EXPECT_TRUE(store.Create(Named("ann", "a")).ok());
  EXPECT_TRUE(store.Create(Named("ann", "b")).ok());
  EXPECT_EQ(store.Create(Named("ann", "c")).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store.Fork("ann", "a", {}, Named("ann", "c")).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(store.Create(Named("bob", "c")).ok());
  EXPECT_TRUE(store.Delete("ann", "a").ok());
  EXPECT_TRUE(store.Create(Named("ann", "c")).ok());
}

TEST_F(SessionStoreTest, List_GoesPageByPageAndFiltersByLabel) {
  SessionStore store(options_);
  for (int i = 0; i < 10; ++i) {
    SessionSpec spec = Named("ann", "");
    spec.labels = {{"parity", i % 2 == 0 ? "even" : "odd"}};
    ASSERT_TRUE(store.Create(spec).ok());
  }
  std::set<std::string> ids;
  std::string after;
  for (int page = 0; page < 4; ++page) {
    for (const SessionInfo& info : store.List("ann", {}, after, 3)) {
      EXPECT_TRUE(ids.insert(info.id).second);
      after = info.id;
    }
  }
  EXPECT_EQ(ids.size(), 10u);
  EXPECT_EQ(store.List("ann", {{"parity", "even"}}, "", 100).size(), 5u);
}

TEST_F(SessionStoreTest, BadSpecs_NameTheField) {
  SessionStore store(options_);
  EXPECT_EQ(FieldOf(store.Create(Named("ann", std::string(129, 'x').c_str())).status()), "session.name");
  SessionSpec spec = Named("ann", "a");
  spec.ttl = absl::ZeroDuration();
  EXPECT_EQ(FieldOf(store.Create(spec).status()), "session.ttl");
  spec = Named("ann", "a");
  spec.labels[""] = "x";
  EXPECT_EQ(FieldOf(store.Create(spec).status()), "session.labels");
  ASSERT_TRUE(store.Create(Named("ann", "a")).ok());
  EXPECT_EQ(FieldOf(store.Rewind("ann", "a", 1, false).status()), "position");
  EXPECT_EQ(FieldOf(store.Fork("ann", "a", -1, Named("ann", "b")).status()), "position");
  EXPECT_EQ(FieldOf(store.BeginTurn("ann", "a", Tokens{}, "").status()), "input");
}

// Schedules of turns, cancelled turns, forks and rewinds on a real model, against running every turn from scratch.
class ScheduleTest : public ::testing::Test {
 protected:
  static constexpr int32_t kVocab = 300;

  void Load(int64_t switch_over, int64_t max_rows) {
    engine_.reset();
    LoadOptions load;
    load.chunk = 16;
    load.switch_over = switch_over;
    auto model = LoadModel(STATEHOUSE_SOURCE_DIR "/tests/golden/models/powercoder-tiny", load, &pool_);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    auto engine = Engine::Create(model_.get(), nullptr, {.max_num_seqs = 3, .max_num_batched_tokens = max_rows});
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  std::shared_ptr<SnapshotDraft> Draft() {
    return *SnapshotDraft::Reserve({model_->retention(), model_->config().num_layers}, kVocab);
  }
  std::unique_ptr<Request> MakeTurn(const Tokens& prompt, int64_t max_tokens, uint64_t seed) {
    auto request = MakeRequest(prompt, max_tokens);
    request->sampling.seed = seed;
    request->num_logprobs = 2;
    request->stop.ignore_eos = true;
    return request;
  }
  // Runs until the stream ends; cancels it after `steps` steps if that is not negative.
  ReadStream Run(std::unique_ptr<Request> request, int64_t steps = -1) {
    auto stream = engine_->Submit(std::move(request));
    EXPECT_TRUE(stream.ok()) << stream.status();
    ReadStream read;
    for (int64_t step = 0; stream.ok() && !read.done; ++step) {
      if (step == steps) (*stream)->Cancel();
      engine_->RunStep();
      Drain(stream->get(), &read);
    }
    return read;
  }
  void RunSchedule(uint32_t seed);
  void RunTurn(SessionStore* store, const std::string& name, Tokens* plain);

  kernels::ThreadPool pool_{1};
  std::unique_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
  std::mt19937 random_;
  int64_t turns_ = 0;
  int64_t tokens_reused_ = 0;
};

void ScheduleTest::RunTurn(SessionStore* store, const std::string& name, Tokens* plain) {
  const Tokens input = MakePrompt(1 + random_() % 25, random_(), kVocab);
  const uint64_t seed = random_();
  const int64_t max_tokens = 1 + random_() % 12;
  auto turn = store->BeginTurn("ann", name, input, "");
  ASSERT_TRUE(turn.ok()) << turn.status();
  plain->insert(plain->end(), input.begin(), input.end());
  ASSERT_EQ((*turn)->prompt(), *plain);

  auto request = MakeTurn((*turn)->prompt(), max_tokens, seed);
  request->from = (*turn)->from();
  const int64_t restored = request->from == nullptr ? 0 : request->from->position();
  std::vector<std::shared_ptr<SnapshotDraft>> drafts;
  const auto order = [&](int64_t position) {
    drafts.push_back(Draft());
    request->snapshots.push_back({position, drafts.back()});
  };
  const int64_t prompt_size = static_cast<int64_t>(plain->size());
  if (random_() % 3 == 0) order(restored + 1 + random_() % (prompt_size - restored));
  order(SnapshotOrder::kAtEnd);
  const bool cancelled = random_() % 5 == 0;
  const ReadStream read = Run(std::move(request), cancelled ? random_() % 10 : -1);
  const ReadOutput& output = read.outputs[0];

  const ReadStream scratch = Run(MakeTurn(*plain, max_tokens, seed));
  const ReadOutput& expected = scratch.outputs[0];
  ASSERT_LE(output.tokens.size(), expected.tokens.size());
  ASSERT_TRUE(cancelled || output.tokens.size() == expected.tokens.size());
  ASSERT_TRUE(std::equal(output.tokens.begin(), output.tokens.end(), expected.tokens.begin()));
  ASSERT_EQ(std::memcmp(output.logprobs.data(), expected.logprobs.data(), output.logprobs.size() * sizeof(float)), 0)
      << "the bits differ";

  ++turns_;
  tokens_reused_ += restored;
  if (cancelled && random_() % 2 == 0) {  // the caller wants the session as it was
    plain->resize(plain->size() - input.size());
    return;
  }
  plain->insert(plain->end(), output.tokens.begin(), output.tokens.end());
  std::vector<std::shared_ptr<const Snapshot>> snapshots;
  for (const auto& draft : drafts) {
    if (draft->filled()) snapshots.push_back(draft->Seal(*plain));
  }
  (*turn)->Commit({.tokens = output.tokens, .seed = seed}, snapshots);
}

void ScheduleTest::RunSchedule(uint32_t seed) {
  random_.seed(seed);
  SessionStore store({.chunk = 16, .max_snapshots = static_cast<int64_t>(1 + random_() % 5)});
  std::map<std::string, Tokens> plain;
  const auto pick = [&] {
    auto entry = plain.begin();
    std::advance(entry, random_() % plain.size());
    return entry;
  };
  ASSERT_TRUE(store.Create(Named("ann", "0")).ok());
  plain["0"] = {};
  for (int event = 0; event < 8; ++event) {
    const auto [name, tokens] = *pick();
    const int64_t size = static_cast<int64_t>(tokens.size());
    const uint32_t kind = random_() % 6;
    if (kind == 0) {
      const int64_t position = random_() % (size + 1);
      const std::string copy = std::to_string(plain.size());
      ASSERT_TRUE(store.Fork("ann", name, position, Named("ann", copy.c_str())).ok());
      plain[copy].assign(tokens.begin(), tokens.begin() + position);
    } else if (kind == 1) {
      const int64_t position = random_() % (size + 1);
      const auto cost = store.Rewind("ann", name, position, false);
      ASSERT_TRUE(cost.ok()) << cost.status();
      EXPECT_EQ(cost->snapshot_position + cost->tokens_to_compute, position);
      plain[name].resize(position);
    } else {
      RunTurn(&store, name, &plain[name]);
    }
    if (::testing::Test::HasFatalFailure()) return;
    for (const auto& [session, expected] : plain) ASSERT_EQ(*store.Tokens("ann", session), expected);
  }
}

TEST_F(ScheduleTest, RandomSchedules_EqualRunningEverythingFromScratch) {
  const char* soak = std::getenv("STATEHOUSE_SOAK_SECONDS");
  const int64_t schedules = soak != nullptr && std::atoi(soak) > 0 ? 10000 : 300;
  for (int64_t idx = 0; idx < schedules; ++idx) {
    if (idx % 50 == 0) Load(idx % 150 == 0 ? 0 : idx % 150 == 50 ? 48 : kernels::kSwitchOverAuto, 8 + idx % 37);
    RunSchedule(static_cast<uint32_t>(idx));
    ASSERT_FALSE(HasFailure()) << "schedule " << idx << " (its seed)";
  }
  std::printf("%lld schedules (seeds 0 …), %lld turns, %lld tokens restored instead of computed\n",
              static_cast<long long>(schedules), static_cast<long long>(turns_),
              static_cast<long long>(tokens_reused_));
  EXPECT_GT(tokens_reused_, turns_ * 10);
}

}  // namespace
}  // namespace statehouse::testing
