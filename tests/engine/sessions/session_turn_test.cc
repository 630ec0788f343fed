// Turns: one writer at a time, what a retry finds, and what a turn starts from.
#include "engine/sessions/session_turn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "tests/engine/sessions/session_fixture.h"
#include "tests/support/faulty_blobs.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

TEST_F(SessionStoreTest, SecondWriter_IsAborted_AndAbandonedTurnLeavesNoTrace) {
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  {
    auto turn = Begin(store.get(), "ann", "a", {1, 2, 3});
    ASSERT_TRUE(turn.ok());
    const absl::Status second = Begin(store.get(), "ann", "a", {4}).status();
    EXPECT_EQ(second.code(), absl::StatusCode::kAborted);
    EXPECT_TRUE(RetryAfterOf(second).has_value());
    EXPECT_EQ(store->Delete("ann", "a").status().code(), absl::StatusCode::kAborted);
    EXPECT_EQ(store->Rewind("ann", "a", 0, false).status().code(), absl::StatusCode::kAborted);
    EXPECT_TRUE(store->Get("ann", "a")->busy);
    EXPECT_EQ(store->totals().busy, 1);
  }
  EXPECT_EQ(store->Get("ann", "a")->num_tokens, 0);
  EXPECT_FALSE(store->Get("ann", "a")->busy);
  EXPECT_EQ(store->totals().busy, 0);
  EXPECT_TRUE(Begin(store.get(), "ann", "a", {4}).ok());
}

TEST_F(SessionStoreTest, RepeatedTurn_ReturnsTheFirstOutcomeAndAppendsOnce) {
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {9}, {9}).ok());
  {
    auto turn = Begin(store.get(), "ann", "a", {1, 2}, "key");
    ASSERT_TRUE(turn.ok());
    ASSERT_TRUE((*turn)->Commit({.tokens = {7, 8}, .seed = 5, .detail = "stop"}, {}).ok());
    EXPECT_EQ((*turn)->Commit({.tokens = {7, 8}, .seed = 5, .detail = ""}, {}).status().code(),
              absl::StatusCode::kFailedPrecondition);
  }
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {3}, {4}).ok());
  auto again = Begin(store.get(), "ann", "a", {1, 2}, "key");
  ASSERT_TRUE(again.ok());
  ASSERT_TRUE((*again)->repeated().has_value());
  const TurnOutcome& first = *(*again)->repeated();
  EXPECT_EQ(first.tokens, (Tokens{7, 8}));
  EXPECT_EQ(first.seed, 5u);
  EXPECT_EQ(first.detail, "stop");
  EXPECT_EQ(first.position_before, 2);
  EXPECT_EQ(first.answer_begin, 4);
  EXPECT_EQ(first.num_tokens, 6);
  EXPECT_EQ((*again)->prompt(), (Tokens{9, 9, 1, 2}));
  EXPECT_EQ(Tokens((*again)->input().begin(), (*again)->input().end()), (Tokens{1, 2}));
  EXPECT_EQ(TokensOf(store.get(), "ann", "a"), (Tokens{9, 9, 1, 2, 7, 8, 3, 4}));
  EXPECT_EQ(FieldOf(Begin(store.get(), "ann", "a", {1, 3}, "key").status()), "session.idempotency_key");
  clock_.Advance(absl::Hours(24));
  EXPECT_FALSE((*Begin(store.get(), "ann", "a", {1, 2}, "key"))->repeated().has_value());
}

TEST_F(SessionStoreTest, RetryOfATurnThatNeverEnded_GetsItsInputAndItsSeed) {
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  int made = 0;
  TurnRequest request;
  request.principal = "ann";
  request.ref = "a";
  request.idempotency_key = "key";
  request.digest = "as asked";
  request.seed = 77;
  request.make_input = [&made](std::span<const int32_t> held) -> absl::StatusOr<Tokens> {
    ++made;
    return Tokens{static_cast<int32_t>(held.size()), 5};
  };
  ASSERT_TRUE(store->BeginTurn(request).ok());
  request.seed = 78;
  auto retried = store->BeginTurn(request);
  ASSERT_TRUE(retried.ok());
  EXPECT_EQ((*retried)->seed(), 77u);
  EXPECT_EQ((*retried)->prompt(), (Tokens{0, 5}));
  EXPECT_EQ(made, 1) << "the input is on record";
  retried->reset();
  request.digest = "otherwise";
  EXPECT_EQ(FieldOf(store->BeginTurn(request).status()), "session.idempotency_key");
  request.idempotency_key = "another";
  EXPECT_EQ((*store->BeginTurn(request))->seed(), 78u);
  EXPECT_EQ(store->Get("ann", "a")->turns, 0);
}

TEST_F(SessionStoreTest, InputThatCannotBeMade_LeavesTheSessionFree) {
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  TurnRequest request;
  request.principal = "ann";
  request.ref = "a";
  request.make_input = [](std::span<const int32_t>) -> absl::StatusOr<Tokens> {
    return InvalidField("messages", "none", "one");
  };
  EXPECT_EQ(FieldOf(store->BeginTurn(request).status()), "messages");
  EXPECT_TRUE(RunTurn(store.get(), "ann", "a", {1}, {2}).ok());
}

TEST_F(SessionStoreTest, MissingSession_IsMadeIfTheTurnAsksForIt) {
  const auto store = OpenStore();
  TurnRequest request;
  request.principal = "ann";
  request.ref = "new";
  const Tokens input = {1};
  request.input = input;
  EXPECT_EQ(store->BeginTurn(request).status().code(), absl::StatusCode::kNotFound);
  request.create_if_missing = true;
  EXPECT_TRUE(store->BeginTurn(request).ok());
  EXPECT_EQ(store->Get("ann", "new")->spec.name, "new");
}

TEST_F(SessionStoreTest, LostOrDamagedSnapshot_CostsAReplayAndSaysSo) {
  auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  vault_->Settle();
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {5, 6, 7}, {8}, {7}).ok());
  vault_->Crash();
  {
    auto turn = Begin(store.get(), "ann", "a", {9});
    ASSERT_TRUE(turn.ok()) << turn.status();
    EXPECT_EQ((*turn)->from()->position(), 3);
    EXPECT_EQ((*turn)->from_tier(), Tier::kDisk);
    EXPECT_EQ((*turn)->num_replayed(), 5);
    EXPECT_THAT((*turn)->why_not_nearer(), HasSubstr("the snapshot at 7: it is in no tier; 4 tokens"));
  }
  vault_->Crash();
  vault_->Damage();
  auto turn = Begin(store.get(), "ann", "a", {9});
  ASSERT_TRUE(turn.ok());
  EXPECT_EQ((*turn)->from(), nullptr);
  EXPECT_THAT((*turn)->why_not_nearer(), HasSubstr("the snapshot at 3: "));
  EXPECT_EQ((*turn)->num_replayed(), 8);
  turn->reset();
  const auto report = store->Check("ann", "");
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->sessions, 1);
  ASSERT_EQ(report->damages.size(), 3u) << "one damaged, so held nowhere, and one lost";
  EXPECT_EQ(report->damages[0].tier, Tier::kDisk);
}

TEST_F(SessionStoreTest, SnapshotOfOtherTokens_IsNeverStartedFrom) {
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  vault_->MixUp(FakeSnapshot({1, 9, 3}));
  {
    const auto turn = Begin(store.get(), "ann", "a", {5});
    EXPECT_EQ((*turn)->from(), nullptr);
    EXPECT_THAT((*turn)->why_not_nearer(), HasSubstr("it holds other tokens; 3 tokens are computed again"));
  }
  vault_->MixUp(FakeSnapshot({1, 2}));
  EXPECT_THAT((*Begin(store.get(), "ann", "a", {5}))->why_not_nearer(), HasSubstr("it is of another position"));
}

TEST_F(SessionStoreTest, SnapshotOfAnotherModel_IsRefusedUntilTheSessionIsRebuilt) {
  auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  vault_->Settle();
  vault_->Crash();
  Fingerprint other = here_;
  other.identity.weights += 1;
  vault_->set_here(other);
  const absl::Status refused = Begin(store.get(), "ann", "a", {9}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("rebuild the session"));
  {
    auto rebuild = store->BeginRebuild("ann", "a", absl::InfiniteFuture());
    ASSERT_TRUE(rebuild.ok()) << rebuild.status();
    EXPECT_EQ((*rebuild)->from(), nullptr);
    EXPECT_EQ((*rebuild)->prompt(), (Tokens{1, 2, 3, 4}));
    const std::shared_ptr<const Snapshot> snapshot = FakeSnapshot({1, 2, 3, 4});
    ASSERT_TRUE((*rebuild)->Commit({}, {&snapshot, 1}).ok());
  }
  EXPECT_EQ((*Begin(store.get(), "ann", "a", {9}))->from()->position(), 4);
  EXPECT_EQ(store->Get("ann", "a")->turns, 1);
  EXPECT_EQ(vault_->size(), 1);
}

TEST_F(SessionStoreTest, TooMuchWithoutADurableSnapshot_WaitsForOneOrFailsAndLosesNothing) {
  options_.max_replay_tokens = 5;
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  EXPECT_EQ(vault_->flushes, 0);
  vault_->flush_fails = absl::ResourceExhaustedError("the disk is full");
  EXPECT_EQ(RunTurn(store.get(), "ann", "a", {5, 6, 7}, {8}, {7}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(TokensOf(store.get(), "ann", "a"), (Tokens{1, 2, 3, 4}));
  EXPECT_EQ(vault_->size(), 1) << "the snapshot of a turn that failed is not kept";
  vault_->flush_fails = absl::OkStatus();
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {5, 6, 7}, {8}, {7}).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {9}, {}).ok());
  const int64_t flushes = vault_->flushes;
  EXPECT_EQ(flushes, 4) << "two that failed, then the snapshot at 3, then, as that is too far back, at 7";
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {9}, {9}, {}).ok());
  EXPECT_EQ(vault_->flushes, flushes) << "the snapshot at 7 is near enough, and known to be durable";
}

TEST_F(SessionStoreTest, ArithmeticThatDoesNotRepeatItself_IsContinuedWhateverIsRestoredOrReplayed) {
  options_.is_batch_invariant = false;
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  {
    const auto first = Begin(store.get(), "ann", "a", {1, 2, 3}, "key");
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ((*first)->exactness(), Exactness::kExact) << "nothing came before it";
  }
  {
    const auto retry = Begin(store.get(), "ann", "a", {1, 2, 3}, "key");
    ASSERT_TRUE(retry.ok()) << retry.status();
    EXPECT_EQ((*retry)->exactness(), Exactness::kContinued) << "the first try may have shown other tokens";
  }
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  for (const bool is_restored : {true, false}) {
    const auto turn = Begin(store.get(), "ann", "a", {5});
    ASSERT_TRUE(turn.ok()) << turn.status();
    EXPECT_EQ((*turn)->from() != nullptr, is_restored);
    EXPECT_EQ((*turn)->exactness(), Exactness::kContinued);
    EXPECT_NE((*turn)->numeric_difference().find("--deterministic"), std::string::npos);
    vault_->Crash();
  }
  EXPECT_EQ(store->Export("ann", "a")->exactness, Exactness::kExact) << "tokens alone";
}

TEST_F(SessionStoreTest, NoSnapshotNearEnough_IsSaidAndNotPassedOver) {
  options_.max_replay_tokens = 5;
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}).ok());
  const absl::Status status = RunTurn(store.get(), "ann", "a", {5, 6, 7}, {8}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_TRUE(RetryAfterOf(status).has_value());
  EXPECT_EQ(TokensOf(store.get(), "ann", "a"), (Tokens{1, 2, 3, 4}));
  EXPECT_TRUE(RunTurn(store.get(), "ann", "a", {5, 6, 7}, {8}, {7}).ok());
  SessionChange change;
  change.durability = Durability::kAsync;
  ASSERT_TRUE(store->Update("ann", "a", change).ok());
  EXPECT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3, 4, 5, 6}, {}).ok()) << "async promises nothing of the kind";
  vault_->flush_fails = absl::FailedPreconditionError("no tier survives");
  ASSERT_TRUE(store->Create(Named("ann", "b")).ok());
  EXPECT_TRUE(RunTurn(store.get(), "ann", "b", {1, 2, 3, 4, 5, 6}, {}).ok()) << "nor does a server without a disk";
}

// The vault's own ratio of what may wait to what fits into memory, and a disk that hangs.
TEST_F(SessionStoreTest, SnapshotThatHadToGoUnwritten_IsRefusedAsTooMuch) {
  FaultyBlobs disk("disk");
  SnapshotVaultOptions tiers;
  tiers.host_bytes = 2 * FakeSnapshotBytes(3);
  auto vault = SnapshotVault::Create(tiers, here_, FakeShape(), &disk, nullptr);
  ASSERT_TRUE(vault.ok()) << vault.status();
  options_.vault = vault->get();
  options_.max_replay_tokens = 2;
  const auto store = OpenStore();
  const auto wait_for_calls = [&disk](int64_t calls) {
    while (disk.num_calls() < calls) absl::SleepFor(absl::Milliseconds(1));
  };
  wait_for_calls(1);  // what is there
  disk.SetHanging(true);
  for (int idx = 0; idx < 4; ++idx) {
    ASSERT_TRUE((*vault)->Keep(SnapshotVault::NewKey(), FakeSnapshot({1, 2, 3}), true).ok());
    wait_for_calls(2);  // the first one is on its way, the others wait
  }
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  auto turn = std::async(std::launch::async, [&] {
    return RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).status();
  });
  wait_for_calls(3);  // it is refused, and what it kept is looked for everywhere
  disk.SetHanging(false);
  const absl::Status status = turn.get();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_TRUE(RetryAfterOf(status).has_value());
  EXPECT_EQ(store->Get("ann", "a")->num_tokens, 0);
  for (absl::Status again = status; !again.ok();) {
    ASSERT_EQ(again.code(), absl::StatusCode::kResourceExhausted) << again;
    absl::SleepFor(absl::Milliseconds(10));
    again = RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).status();
  }
}

TEST_F(SessionStoreTest, WaitForADurableSnapshot_HoldsUpNeitherReadersNorForks) {
  options_.max_replay_tokens = 5;
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  bool waited = false;
  vault_->on_flush = [&](const std::string&) {  // a lock that is held here would never be had
    if (std::exchange(waited, true)) return;
    EXPECT_TRUE(store->Get("ann", "a")->busy);
    SessionChange change;
    change.name = "b";
    EXPECT_TRUE(store->Update("ann", "a", change).ok());
    EXPECT_TRUE(store->Fork("ann", "b", {}, Named("ann", "fork")).ok());
  };
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {5, 6, 7}, {8}, {7}).ok());
  EXPECT_TRUE(waited);
  EXPECT_EQ(TokensOf(store.get(), "ann", "b"), (Tokens{1, 2, 3, 4, 5, 6, 7, 8}));
  ASSERT_TRUE(store->Delete("ann", "b").ok());
  const auto turn = Begin(store.get(), "ann", "fork", {9});
  ASSERT_NE((*turn)->from(), nullptr) << "the fork's snapshot went with the session that it was made of";
  EXPECT_EQ((*turn)->from()->position(), 3);
}

TEST_F(SessionStoreTest, TurnsThatBeginAndNeverEnd_DoNotMakeTheRecordsGrow) {
  const auto store = OpenStore();
  const auto made = store->Create(Named("ann", "a"));
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}).ok());
  size_t most = 0;
  for (int round = 0; round < 50; ++round) {
    ASSERT_TRUE(Begin(store.get(), "ann", "a", Tokens(1000, 300), absl::StrCat("key ", round)).ok());
    size_t bytes = 0;
    const auto kept = archive_.Read(made->id);
    for (const std::string& record : kept->records) bytes += record.size();
    most = std::max(most, bytes);
  }
  EXPECT_LT(most, 20000u);
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", Tokens(1000, 300), {5}, {}, "key 49").ok());
  EXPECT_EQ(store->Get("ann", "a")->num_tokens, 1005);
}

TEST_F(SessionStoreTest, DrainingStore_WritesAllHeadsBeforeOlderSnapshots) {
  const auto store = OpenStore();
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_TRUE(store->Create(Named("ann", name)).ok());
    ASSERT_TRUE(RunTurn(store.get(), "ann", name, Tokens(40, 1), {}, {3, 20, 40}).ok());
  }
  std::vector<int64_t> positions;
  vault_->on_flush = [&](const std::string& key) {
    positions.push_back((*vault_->Fetch(key, false)).snapshot->position());
  };
  ASSERT_TRUE(store->Drain(absl::InfiniteFuture()).ok());
  ASSERT_GT(positions.size(), 3u);
  for (size_t idx = 0; idx < positions.size(); ++idx) EXPECT_EQ(positions[idx] == 40, idx < 3) << idx;
}

TEST_F(SessionStoreTest, DrainingStore_WaitsForTurnsAndTakesNoMore) {
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  auto turn = *Begin(store.get(), "ann", "a", {5});
  EXPECT_EQ(store->Drain(absl::Now()).code(), absl::StatusCode::kDeadlineExceeded);
  std::thread ender([&turn] {
    absl::SleepFor(absl::Milliseconds(20));
    EXPECT_TRUE(turn->Commit({.tokens = {6}, .seed = 1, .detail = ""}, {}).ok());
  });
  EXPECT_TRUE(store->Drain(absl::InfiniteFuture()).ok());
  ender.join();
  EXPECT_EQ(Begin(store.get(), "ann", "a", {7}).status().code(), absl::StatusCode::kUnavailable);
  vault_->Crash();
  EXPECT_EQ(vault_->size(), 1) << "the head went to disk";
  EXPECT_EQ(TokensOf(store.get(), "ann", "a"), (Tokens{1, 2, 3, 4, 5, 6}));
}

TEST_F(SessionStoreTest, ManyThreads_EachTurnIsThereOnce) {
  options_.max_open_sessions = 2;
  options_.upkeep_thread = true;
  options_.async_lag = absl::Milliseconds(10);
  const auto store = OpenStore();
  for (int idx = 0; idx < 4; ++idx) ASSERT_TRUE(store->Create(Named("ann", absl::StrCat(idx).c_str())).ok());
  std::atomic<int64_t> committed{0};
  std::vector<std::thread> threads;
  for (int32_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int32_t round = 0; round < 50; ++round) {
        const std::string name = absl::StrCat((thread + round) % 4);
        const absl::Status status = RunTurn(store.get(), "ann", name, {thread, round}, {1}, {2}).status();
        if (status.ok()) {
          ++committed;
        } else {
          EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
        }
        (void)store->Get("ann", name);
        if (round % 10 == 0) (void)store->List("ann", {}, "", 10);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  int64_t turns = 0;
  for (int idx = 0; idx < 4; ++idx) turns += store->Get("ann", absl::StrCat(idx))->turns;
  EXPECT_EQ(turns, committed.load());
  EXPECT_GT(committed.load(), 50);
}

}  // namespace
}  // namespace statehouse::testing
