// Sessions as a whole: what belongs to whom, names, quotas, ends, copies, and what is removed with them.
#include "engine/sessions/session_store.h"

#include <gtest/gtest.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "tests/engine/sessions/session_fixture.h"

namespace statehouse::testing {
namespace {

// Reading and removing fail as a test says.
class StuckArchive : public MemoryArchive {
 public:
  absl::StatusOr<Records> Read(std::string_view id) override {
    if (!read_fails.ok()) return read_fails;
    return MemoryArchive::Read(id);
  }
  absl::Status Remove(std::string_view id, int64_t fence) override {
    if (remove_fails.ok() || removes_all_the_same) (void)MemoryArchive::Remove(id, fence);
    return remove_fails;
  }

  absl::Status read_fails;
  absl::Status remove_fails;
  bool removes_all_the_same = false;  // and only the answer is lost
};

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
  EXPECT_EQ(FieldOf(store->List("ann", {}, "garbage", 3).status()), "page_token");
}

TEST_F(SessionStoreTest, BadSpecs_NameTheField) {
  const auto store = OpenStore();
  EXPECT_EQ(FieldOf(store->Create(Named("ann", std::string(129, 'x').c_str())).status()), "session.name");
  EXPECT_EQ(FieldOf(store->Create(Named("ann", std::string(32, 'a').c_str())).status()), "session.name");
  for (const char* name : {"two\nlines", "\t", "a\x7f", "\x1b[31mred"}) {
    EXPECT_EQ(FieldOf(store->Create(Named("ann", name)).status()), "session.name") << name;
  }
  EXPECT_TRUE(store->Create(Named("ann", "grüße, 世界")).ok());
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

TEST_F(SessionStoreTest, DurabilityThatCannotBeChanged_LeavesTheSessionWhereItIs) {
  StuckArchive stuck;
  options_.archive = &stuck;
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  SessionChange change;
  change.durability = Durability::kMemory;
  stuck.remove_fails = absl::UnavailableError("no answer");
  EXPECT_EQ(store->Update("ann", "a", change).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(store->Get("ann", "a")->spec.durability, Durability::kSync);
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {5}, {6}).ok());
  EXPECT_EQ(TokensOf(OpenStore().get(), "ann", "a"), (Tokens{1, 2, 3, 4, 5, 6})) << "it is still in the archive";
  stuck.removes_all_the_same = true;
  ASSERT_TRUE(store->Update("ann", "a", change).ok()) << "it is gone from there, and must not be lost here";
  EXPECT_EQ(TokensOf(store.get(), "ann", "a"), (Tokens{1, 2, 3, 4, 5, 6}));
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

TEST_F(SessionStoreTest, DurableForkOfASessionInMemory_HasDurableSnapshots) {
  auto store = OpenStore();
  SessionSpec spec = Named("ann", "a");
  spec.durability = Durability::kMemory;
  ASSERT_TRUE(store->Create(spec).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  spec.name = "fork";
  spec.durability = Durability::kSync;
  ASSERT_TRUE(store->Fork("ann", "a", {}, spec).ok());
  vault_->Settle();
  vault_->Crash();
  store.reset();
  store = OpenStore();
  const auto turn = Begin(store.get(), "ann", "fork", {5});
  ASSERT_TRUE(turn.ok()) << turn.status();
  ASSERT_NE((*turn)->from(), nullptr);
  EXPECT_EQ((*turn)->from()->position(), 3);
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

TEST_F(SessionStoreTest, YoungGarbage_StaysOnlyWhereARecordMayBeAboutToNameIt) {
  const std::string earlier(32, 'e'), later(32, 'f');
  vault_->modified[earlier] = clock_.Now();
  clock_.Advance(absl::Minutes(1));  // a crash, and the next start
  const auto store = OpenStore();
  vault_->modified[later] = clock_.Now();
  for (const std::string& key : {earlier, later}) ASSERT_TRUE(vault_->Keep(key, FakeSnapshot({1}), true).ok());
  vault_->Settle();
  vault_->Crash();
  const size_t disk = static_cast<size_t>(Tier::kDisk);
  auto report = store->CollectGarbage();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->removed.snapshots[disk], 1);
  EXPECT_EQ(vault_->Where(earlier), Tier::kNone);
  EXPECT_EQ(report->too_young.snapshots[disk], 1);
  EXPECT_GT(report->too_young.bytes[disk], 0);
  EXPECT_EQ(vault_->Where(later), Tier::kDisk);
  clock_.Advance(absl::Hours(1));
  report = store->CollectGarbage();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->too_young.snapshots[disk], 0);
  EXPECT_EQ(vault_->size(), 0);
}

TEST_F(SessionStoreTest, SessionThatCannotBeReadNow_KeepsItsSnapshots) {
  StuckArchive stuck;
  options_.archive = &stuck;
  ASSERT_TRUE(OpenStore()->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(OpenStore().get(), "ann", "a", {1, 2, 3}, {4}, {3}).ok());
  vault_->Settle();
  const auto store = OpenStore();
  for (const auto code : {absl::StatusCode::kInternal, absl::StatusCode::kFailedPrecondition}) {
    stuck.read_fails = absl::Status(code, "not now");
    EXPECT_EQ(store->CollectGarbage().status().code(), code);
    EXPECT_EQ(vault_->size(), 1);
  }
  stuck.read_fails = absl::DataLossError("damaged");
  EXPECT_TRUE(store->CollectGarbage().ok());
}

TEST_F(SessionStoreTest, SnapshotsOfThePrefixCache_AreGarbageOnceItsProcessIsGone) {
  const auto store = OpenStore();
  const std::string before = SnapshotVault::NewPrefixKey();
  const std::string now = SnapshotVault::NewPrefixKey();
  vault_->modified[before] = clock_.Now() - absl::Seconds(1);
  vault_->modified[now] = clock_.Now();
  for (const std::string& key : {before, now}) ASSERT_TRUE(vault_->Keep(key, FakeSnapshot({1}), true).ok());
  vault_->Settle();
  clock_.Advance(absl::Hours(10));
  ASSERT_TRUE(store->CollectGarbage().ok());
  EXPECT_EQ(vault_->Where(before), Tier::kNone);
  EXPECT_NE(vault_->Where(now), Tier::kNone);
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

// Counts what is asked of it.
class CountingArchive final : public MemoryArchive {
 public:
  absl::StatusOr<Records> Read(std::string_view id) override {
    ++reads;
    return MemoryArchive::Read(id);
  }
  int64_t reads = 0;
};

TEST_F(SessionStoreTest, ListAfterARestart_ReadsNoHistoryAndSaysWhatGetSays) {
  CountingArchive archive;
  options_.archive = &archive;
  auto store = OpenStore();
  for (int idx = 0; idx < 5; ++idx) {
    SessionSpec spec = Named("ann", absl::StrCat("s", idx).c_str());
    spec.labels = {{"number", absl::StrCat(idx)}};
    ASSERT_TRUE(store->Create(spec).ok());
    for (int turn = 0; turn <= idx; ++turn) {
      ASSERT_TRUE(RunTurn(store.get(), "ann", spec.name, {1, 2}, {3}, {3 * (turn + 1)}).ok());
    }
  }
  ASSERT_TRUE(store->Fork("ann", "s1", {}, Named("ann", "fork")).ok());
  store.reset();
  store = OpenStore();
  archive.reads = 0;
  const auto page = store->List("ann", {}, "", 100);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(archive.reads, 0);
  ASSERT_EQ(page->sessions.size(), 6u);
  for (const SessionInfo& info : page->sessions) {
    const auto exact = store->Get("ann", info.id);
    ASSERT_TRUE(exact.ok());
    EXPECT_EQ(info.spec.name, exact->spec.name);
    EXPECT_EQ(info.spec.labels, exact->spec.labels);
    EXPECT_EQ(info.num_tokens, exact->num_tokens);
    EXPECT_EQ(info.turns, exact->turns);
    EXPECT_GT(info.snapshot_bytes, 0);
    EXPECT_EQ(info.snapshot_bytes, exact->snapshot_bytes);
    EXPECT_EQ(info.created, exact->created);
    EXPECT_EQ(info.last_turn, exact->last_turn);
    EXPECT_TRUE(info.checkpoints.empty());
  }
}

TEST_F(SessionStoreTest, ListAfterACrash_SaysWhatSessionsHoldThatNobodyWroteDown) {
  const auto crashed = OpenStore();
  ASSERT_TRUE(crashed->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(crashed->Create(Named("ann", "empty")).ok());
  ASSERT_TRUE(RunTurn(crashed.get(), "ann", "a", {1, 2}, {3}, {3}).ok());
  const auto store = OpenStore();
  const auto page = store->List("ann", {}, "", 100);
  ASSERT_TRUE(page.ok()) << page.status();
  ASSERT_EQ(page->sessions.size(), 2u);
  for (const SessionInfo& info : page->sessions) {
    EXPECT_EQ(info.num_tokens, info.spec.name == "a" ? 3 : 0);
    EXPECT_EQ(info.turns, info.spec.name == "a" ? 1 : 0);
    EXPECT_EQ(info.snapshot_bytes > 0, info.spec.name == "a");
  }
}

TEST_F(SessionStoreTest, ListWhileSessionsAreUsed_SaysWhatTheyHoldNow) {
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2}, {3}).ok());
  EXPECT_EQ(store->List("ann", {}, "", 10)->sessions.at(0).num_tokens, 3) << "no entry says so yet";
  const auto turn = Begin(store.get(), "ann", "a", {4});
  EXPECT_TRUE(store->List("ann", {}, "", 10)->sessions.at(0).busy);
}

TEST_F(SessionStoreTest, SessionThatLeavesMemory_IsListedWithWhatItHeld) {
  options_.max_open_sessions = 1;
  const auto store = OpenStore();
  ASSERT_TRUE(store->Create(Named("ann", "a")).ok());
  ASSERT_TRUE(store->Create(Named("ann", "b")).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "a", {1, 2}, {3}).ok());
  ASSERT_TRUE(RunTurn(store.get(), "ann", "b", {1}, {2}).ok());
  EXPECT_EQ(store->totals().open, 1);
  for (const char* name : {"a", "b"}) {
    ASSERT_TRUE(store->Get("ann", name).ok());  // the other one leaves
    const auto page = store->List("ann", {}, "", 10);
    ASSERT_EQ(page->sessions.size(), 2u);
    for (const SessionInfo& info : page->sessions) {
      EXPECT_EQ(info.num_tokens, info.spec.name == "a" ? 3 : 2) << info.spec.name << " listed after " << name;
    }
  }
}

TEST_F(SessionStoreTest, SomeSessionsAlwaysInUse_DoNotKeepTheEntriesOfOthersBack) {
  constexpr int kSessions = 150;  // more than are written at a time
  const auto store = OpenStore();
  std::map<std::string, std::string> name_of;  // by id, as entries are written
  for (int idx = 0; idx < kSessions; ++idx) {
    const std::string name = absl::StrCat(idx);
    const auto made = store->Create(Named("ann", name.c_str()));
    ASSERT_TRUE(made.ok());
    name_of[made->id] = name;
    ASSERT_TRUE(RunTurn(store.get(), "ann", name, {1, 2}, {3}).ok());
  }
  const auto tokens_in_entry = [this](const std::string& id) {
    return ParseMeta(archive_.FindEntry("ann", id)->meta)->num_tokens;
  };
  for (int round = 0; round < 3; ++round) {
    int used = 0;
    for (const auto& [id, name] : name_of) {
      if (++used > 70) break;
      ASSERT_TRUE(RunTurn(store.get(), "ann", name, {4}, {5}).ok());
    }
    ASSERT_TRUE(store->WriteSummaries(/*all=*/false).ok());
  }
  for (const auto& [id, name] : name_of) EXPECT_GE(tokens_in_entry(id), 3) << name;
}

}  // namespace
}  // namespace statehouse::testing
