// Sessions: what belongs to whom, one writer at a time, what a retry finds, and where snapshots go.
#include "engine/sessions/session_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "tests/engine/sessions/session_fixture.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

TEST_F(SessionStoreTest, SomebodyElsesSession_IsAsIfItWereNotThere) {
  const auto store = OpenStore();
  const auto made = store->Create(Named("ann", "notes"));
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->id.size(), 32u);
  const std::string never = std::string(store->Get("bob", "0123").status().message());
  for (const std::string& ref : {made->id, std::string("notes")}) {
    EXPECT_TRUE(store->Get("ann", ref).ok());
    const std::vector<absl::Status> refused = {store->Get("bob", ref).status(),
                                               store->Transcript("bob", ref, 0, 10).status(),
                                               store->Delete("bob", ref).status(),
                                               store->Fork("bob", ref, {}, Named("bob", "copy")).status(),
                                               store->Rewind("bob", ref, 0, true).status(),
                                               store->Update("bob", ref, {}).status(),
                                               store->Export("bob", ref).status(),
                                               store->BreakLease("bob", ref).status(),
                                               store->Check("bob", ref).status(),
                                               store->BeginRebuild("bob", ref, absl::InfiniteFuture()).status(),
                                               Begin(store.get(), "bob", ref, {1}).status()};
    for (const absl::Status& status : refused) {
      EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
      EXPECT_EQ(std::string(status.message()).size() - ref.size(), never.size() - 4) << "the message tells them apart";
    }
  }
  EXPECT_TRUE(store->List("bob", {}, "", 100)->sessions.empty());
  EXPECT_TRUE(store->Create(Named("bob", "notes")).ok()) << "names are each principal's own";
  EXPECT_EQ(store->Create(Named("ann", "notes")).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(SessionStoreTest, SharedSession_IsReadAndForkedButNotAppendedTo) {
  const auto store = OpenStore();
  SessionSpec spec = Named("ann", "notes");
  spec.shared = true;
  const auto made = store->Create(spec);
  ASSERT_TRUE(made.ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "notes", {1, 2}, {3}).ok());
  EXPECT_EQ(store->Get("bob", "notes").status().code(), absl::StatusCode::kNotFound) << "only the id is shared";
  EXPECT_EQ(store->Get("bob", made->id)->num_tokens, 3);
  EXPECT_EQ(store->Rewind("bob", made->id, 0, false).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Begin(store.get(), "bob", made->id, {1}).status().code(), absl::StatusCode::kPermissionDenied);
  const auto fork = store->Fork("bob", made->id, 2, Named("bob", "mine"));
  ASSERT_TRUE(fork.ok()) << fork.status();
  EXPECT_EQ(TokensOf(store.get(), "bob", "mine"), (Tokens{1, 2}));
  EXPECT_EQ(store->Get("ann", fork->id).status().code(), absl::StatusCode::kNotFound);
}

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

TEST_F(SessionStoreTest, TimeToLive_EndsIdleSessionsButNotPinnedOrBusyOnes) {
  const auto store = OpenStore();
  for (const char* name : {"idle", "pinned", "busy", "forever"}) {
    SessionSpec spec = Named("ann", name);
    if (std::string(name) != "forever") spec.ttl = absl::Minutes(1);
    spec.pinned = std::string(name) == "pinned";
    ASSERT_TRUE(store->Create(spec).ok());
  }
  clock_.Advance(absl::Seconds(30));
  ASSERT_TRUE(RunTurn(store.get(), "ann", "idle", {1}, {2}).ok());
  const auto turn = Begin(store.get(), "ann", "busy", {1});
  clock_.Advance(absl::Seconds(59));
  EXPECT_EQ(*store->Expire(), 0);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(*store->Expire(), 1);
  EXPECT_EQ(store->Get("ann", "idle").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store->List("ann", {}, "", 100)->sessions.size(), 3u);
}

TEST_F(SessionStoreTest, Quotas_RefuseTheNextAndLoseNothing) {
  options_.max_sessions_per_principal = 2;
  const auto store = OpenStore();
  EXPECT_TRUE(store->Create(Named("ann", "a")).ok());
  EXPECT_TRUE(store->Create(Named("ann", "b")).ok());
  EXPECT_EQ(store->Create(Named("ann", "c")).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store->Fork("ann", "a", {}, Named("ann", "c")).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(store->Create(Named("bob", "c")).ok());
  EXPECT_TRUE(store->Delete("ann", "a").ok());
  EXPECT_TRUE(store->Create(Named("ann", "c")).ok());
}

TEST_F(SessionStoreTest, QuotaOfBytes_CountsSnapshotsAlsoAfterARestart) {
  options_.max_bytes_per_principal = 3 * FakeSnapshotBytes(4);
  options_.snapshot_bytes = FakeSnapshotBytes(4);
  auto store = OpenStore();
  for (const char* name : {"a", "b"}) {
    ASSERT_TRUE(store->Create(Named("ann", name)).ok());
    ASSERT_TRUE(RunTurn(store.get(), "ann", name, {1, 2, 3}, {4}, {4}).ok());
  }
  ASSERT_TRUE(store->Create(Named("ann", "c")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "c", {1, 2, 3}, {4}, {4}).ok());
  EXPECT_EQ(Begin(store.get(), "ann", "a", {1}).status().code(), absl::StatusCode::kResourceExhausted);
  store.reset();
  store = OpenStore();
  EXPECT_EQ(Begin(store.get(), "ann", "a", {1}).status().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(store->Delete("ann", "c").ok());
  EXPECT_TRUE(Begin(store.get(), "ann", "a", {1}).ok());
}

TEST_F(SessionStoreTest, List_GoesPageByPageAndFiltersByLabel) {
  const auto store = OpenStore();
  for (int i = 0; i < 10; ++i) {
    SessionSpec spec = Named("ann", "");
    spec.labels = {{"parity", i % 2 == 0 ? "even" : "odd"}};
    spec.durability = i % 3 == 0 ? Durability::kMemory : Durability::kSync;
    ASSERT_TRUE(store->Create(spec).ok());
  }
  ASSERT_TRUE(store->Create(Named("bob", "")).ok());
  for (const Labels& labels : {Labels{}, Labels{{"parity", "even"}}}) {
    std::set<std::string> ids;
    std::string page;
    int pages = 0;
    do {
      const auto some = store->List("ann", labels, page, 3);
      ASSERT_TRUE(some.ok());
      for (const SessionInfo& info : some->sessions) EXPECT_TRUE(ids.insert(info.id).second);
      page = some->next;
    } while (!page.empty() && ++pages < 10);
    EXPECT_EQ(ids.size(), labels.empty() ? 10u : 5u);
  }
}

TEST_F(SessionStoreTest, BadSpecs_NameTheField) {
  const auto store = OpenStore();
  EXPECT_EQ(FieldOf(store->Create(Named("ann", std::string(129, 'x').c_str())).status()), "session.name");
  EXPECT_EQ(FieldOf(store->Create(Named("ann", std::string(32, 'a').c_str())).status()), "session.name");
  SessionSpec spec = Named("ann", "a");
  spec.ttl = absl::ZeroDuration();
  EXPECT_EQ(FieldOf(store->Create(spec).status()), "session.ttl");
  spec = Named("ann", "a");
  spec.labels[""] = "x";
  EXPECT_EQ(FieldOf(store->Create(spec).status()), "session.labels");
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  EXPECT_EQ(FieldOf(store->Rewind("ann", "a", 1, false).status()), "position");
  EXPECT_EQ(FieldOf(store->Fork("ann", "a", -1, Named("ann", "b")).status()), "position");
  EXPECT_EQ(FieldOf(store->Transcript("ann", "a", 1, 1).status()), "from");
  EXPECT_EQ(FieldOf(Begin(store.get(), "ann", "a", {}).status()), "input");
  EXPECT_EQ(FieldOf(Begin(store.get(), "ann", "a", {1}, std::string(129, 'k')).status()), "session.idempotency_key");
  options_.archive = nullptr;
  spec = Named("ann", "a");
  spec.durability = Durability::kSync;
  EXPECT_EQ(FieldOf((*SessionStore::Open(options_))->Create(spec).status()), "session.durability");
  options_.default_durability = Durability::kAsync;
  EXPECT_EQ(FieldOf(SessionStore::Open(options_).status()), "default_durability");
}

TEST_F(SessionStoreTest, Update_ChangesWhatIsNamedAndSurvivesARestart) {
  auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(store->Create(Named("ann", "b")).ok());
  SessionChange change;
  change.name = "b";
  EXPECT_EQ(store->Update("ann", "a", change).status().code(), absl::StatusCode::kAlreadyExists);
  change.name = "c";
  change.labels = Labels{{"k", "v"}};
  change.pinned = true;
  ASSERT_TRUE(store->Update("ann", "a", change).ok());
  EXPECT_EQ(store->Get("ann", "a").status().code(), absl::StatusCode::kNotFound);
  store.reset();
  store = OpenStore();
  const auto info = store->Get("ann", "c");
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_TRUE(info->spec.pinned);
  EXPECT_EQ(info->spec.labels.at("k"), "v");
  EXPECT_TRUE(store->Create(Named("ann", "a")).ok()) << "the old name is free";
}

TEST_F(SessionStoreTest, ChangedDurability_MovesTheSessionWithItsSnapshots) {
  auto store = OpenStore();
  SessionSpec spec = Named("ann", "a");
  spec.durability = Durability::kMemory;
  ASSERT_TRUE(store->Create(spec).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  SessionChange change;
  change.durability = Durability::kSync;
  ASSERT_TRUE(store->Update("ann", "a", change).ok());
  vault_->Settle();
  vault_->Crash();
  store.reset();
  store = OpenStore();
  EXPECT_EQ(TokensOf(store.get(), "ann", "a"), (Tokens{1, 2, 3, 4}));
  EXPECT_EQ((*Begin(store.get(), "ann", "a", {5}))->from()->position(), 3);
  change.durability = Durability::kMemory;
  ASSERT_TRUE(store->Update("ann", "a", change).ok());
  EXPECT_EQ(TokensOf(store.get(), "ann", "a"), (Tokens{1, 2, 3, 4}));
  store.reset();
  store = OpenStore();
  EXPECT_EQ(store->Get("ann", "a").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SessionStoreTest, DeletedSession_IsGoneFromArchiveAndVault_ButForkedSnapshotsStayAsLongAsAForkDoes) {
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  ASSERT_TRUE(store->Fork("ann", "a", {}, Named("ann", "fork")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {5, 6, 7}, {8}, {7}).ok());
  EXPECT_EQ(vault_->size(), 2);
  auto removed = store->Delete("ann", "a");
  ASSERT_TRUE(removed.ok()) << removed.status();
  EXPECT_EQ(removed->snapshots[static_cast<size_t>(Tier::kHost)], 1) << "the other is the fork's too";
  EXPECT_EQ((*Begin(store.get(), "ann", "fork", {9}))->from()->position(), 3);
  removed = store->Delete("ann", "fork");
  ASSERT_TRUE(removed.ok());
  EXPECT_EQ(removed->snapshots[static_cast<size_t>(Tier::kHost)], 1);
  EXPECT_EQ(vault_->size(), 0);
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

TEST_F(SessionStoreTest, ExportedSession_IsAdoptedElsewhere) {
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  const auto image = store->Export("ann", "a");
  ASSERT_TRUE(image.ok()) << image.status();
  const auto copy = store->Adopt(Named("bob", "b"), *image);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(copy->turns, 1);
  EXPECT_EQ(TokensOf(store.get(), "bob", "b"), (Tokens{1, 2, 3, 4}));
  EXPECT_EQ((*Begin(store.get(), "bob", "b", {9}))->from()->position(), 3);
  SessionImage wrong = *image;
  wrong.tokens[0] = 7;
  EXPECT_EQ(FieldOf(store->Adopt(Named("bob", "c"), wrong).status()), "snapshot");
}

TEST_F(SessionStoreTest, Garbage_IsWhatNoSessionRefersTo) {
  auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  ASSERT_TRUE(vault_->Keep(std::string(32, 'f'), FakeSnapshot({1}), true).ok());
  vault_->Settle();
  const auto report = store->CollectGarbage();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->removed.snapshots[static_cast<size_t>(Tier::kDisk)], 1);
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
  const int64_t flushes = vault_->flushes;
  EXPECT_GT(flushes, 0);
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {9}, {9}, {}).ok());
  EXPECT_EQ(vault_->flushes, flushes) << "the snapshot at 7 is near enough, and known to be durable";
}

TEST_F(SessionStoreTest, MoreSessionsThanFitInMemory_AreReadBackWhenTheyAreUsed) {
  options_.max_open_sessions = 3;
  const auto store = OpenStore();
  for (int idx = 0; idx < 20; ++idx) {
    SessionSpec spec = Named("ann", absl::StrCat("s", idx).c_str());
    spec.durability = idx % 2 == 0 ? Durability::kMemory : Durability::kAsync;
    ASSERT_TRUE(store->Create(spec).ok());
    ASSERT_TRUE(RunTurn(store.get(), "ann", spec.name, {idx, 1}, {2}, {2}).ok());
  }
  const auto turn = Begin(store.get(), "ann", "s0", {7});
  for (int idx = 0; idx < 20; ++idx) {
    EXPECT_EQ(TokensOf(store.get(), "ann", absl::StrCat("s", idx)), (Tokens{idx, 1, 2}));
    EXPECT_LE(store->totals().open, 3);
  }
  EXPECT_TRUE(store->Get("ann", "s0")->busy) << "one in use stays";
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
