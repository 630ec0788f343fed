// Two servers on one archive: any goes on with any session, and of two that want to append one succeeds.
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/sessions/folder_archive.h"
#include "tests/engine/sessions/session_fixture.h"

namespace statehouse::testing {
namespace {

class ReplicasTest : public SessionStoreTest {
 protected:
  void SetUp() override {
    OpenOne(absl::Seconds(30));
    options_.replica_id = "two";
    two_ = OpenOn(&archives_[1]);
    ASSERT_NE(two_, nullptr);
    ASSERT_TRUE(one_->Create(Named("ann", "a")).ok());
    ASSERT_TRUE(RunTurn(one_.get(), "ann", "a", {1, 2, 3}, {4}, {3}, "first").ok());
  }
  void TearDown() override {
    one_.reset();
    two_.reset();
    EXPECT_TRUE(FileLayer::Posix()->Remove(folder_).ok());
  }

  // Leases are long, but for a server that a test lets sleep or die: on a slow machine others must not lose theirs.
  void OpenOne(absl::Duration lease) {
    one_.reset();
    options_.lease = lease;
    options_.replica_id = "one";
    one_ = OpenOn(&archives_[0]);
    ASSERT_NE(one_, nullptr);
  }
  std::unique_ptr<SessionStore> OpenOn(std::unique_ptr<FolderArchive>* archive) {
    auto opened = FolderArchive::Open(folder_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (!opened.ok()) return nullptr;
    *archive = *std::move(opened);
    options_.archive = archive->get();
    return OpenStore();
  }

  static constexpr absl::Duration kShortLease = absl::Seconds(2);
  const std::string folder_ = absl::StrCat(::testing::TempDir(), "session_replicas.", getpid());
  std::unique_ptr<FolderArchive> archives_[2];
  std::unique_ptr<SessionStore> one_;
  std::unique_ptr<SessionStore> two_;
};

TEST_F(ReplicasTest, AnyServer_GoesOnWithASession) {
  {
    auto turn = Begin(two_.get(), "ann", "a", {5});
    ASSERT_TRUE(turn.ok()) << turn.status();
    EXPECT_EQ((*turn)->prompt(), (Tokens{1, 2, 3, 4, 5}));
    EXPECT_EQ((*turn)->from()->position(), 3);
    ASSERT_TRUE((*turn)->Commit({.tokens = {6}, .seed = 1, .detail = ""}, {}).ok());
  }
  EXPECT_EQ(TokensOf(one_.get(), "ann", "a"), (Tokens{1, 2, 3, 4, 5, 6}));
  ASSERT_TRUE(RunTurn(one_.get(), "ann", "a", {7}, {8}).ok());
  EXPECT_EQ(two_->Get("ann", "a")->turns, 3);
  EXPECT_EQ(two_->Create(Named("ann", "a")).status().code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(two_->Delete("ann", "a").ok());
  EXPECT_EQ(one_->Get("ann", "a").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ReplicasTest, TurnUnderWayElsewhere_IsAbortedWithAHint_AndReadingGoesOn) {
  const auto turn = Begin(one_.get(), "ann", "a", {5});
  ASSERT_TRUE(turn.ok());
  const absl::Status second = Begin(two_.get(), "ann", "a", {6}).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kAborted) << second;
  EXPECT_TRUE(RetryAfterOf(second).has_value());
  EXPECT_EQ(two_->Rewind("ann", "a", 0, false).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(two_->Delete("ann", "a").status().code(), absl::StatusCode::kAborted);
  const auto info = two_->Get("ann", "a");
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->num_tokens, 4);
  EXPECT_EQ(info->lease.owner, "one");
  const auto repeated = Begin(two_.get(), "ann", "a", {1, 2, 3}, "first");
  ASSERT_TRUE(repeated.ok()) << "what was committed can be asked for all the same: " << repeated.status();
  EXPECT_EQ((*repeated)->repeated()->tokens, Tokens{4});
}

TEST_F(ReplicasTest, ServerThatSleptThroughItsLease_CannotAppend) {
  OpenOne(kShortLease);
  auto slept = Begin(one_.get(), "ann", "a", {5});
  ASSERT_TRUE(slept.ok());
  absl::SleepFor(kShortLease + absl::Milliseconds(100));
  ASSERT_TRUE(RunTurn(two_.get(), "ann", "a", {7}, {8}).ok());
  const std::shared_ptr<const Snapshot> snapshot = FakeSnapshot({1, 2, 3, 4, 5});
  const int64_t snapshots = vault_->size();
  EXPECT_EQ((*slept)->Commit({.tokens = {6}, .seed = 1, .detail = ""}, {&snapshot, 1}).status().code(),
            absl::StatusCode::kAborted);
  slept->reset();
  EXPECT_EQ(vault_->size(), snapshots) << "its snapshot is not kept";
  for (SessionStore* const store : {one_.get(), two_.get()}) {
    EXPECT_EQ(TokensOf(store, "ann", "a"), (Tokens{1, 2, 3, 4, 7, 8}));
  }
  EXPECT_TRUE(RunTurn(one_.get(), "ann", "a", {9}, {9}).ok()) << "it goes on from what is there now";
}

TEST_F(ReplicasTest, TurnOfAServerThatDied_IsComputedAgainFromItsRecord) {
  OpenOne(kShortLease);
  auto died = Begin(one_.get(), "ann", "a", {5}, "key");
  ASSERT_TRUE(died.ok());
  EXPECT_EQ(Begin(two_.get(), "ann", "a", {5}, "key").status().code(), absl::StatusCode::kAborted);
  absl::SleepFor(kShortLease + absl::Milliseconds(100));
  TurnRequest request;
  request.principal = "ann";
  request.ref = "a";
  const Tokens input = {5};
  request.input = input;
  request.idempotency_key = "key";
  request.seed = 99;
  const auto turn = two_->BeginTurn(request);
  ASSERT_TRUE(turn.ok()) << turn.status();
  EXPECT_EQ((*turn)->seed(), 1u) << "the first one's: the same tokens come out";
}

TEST_F(ReplicasTest, LeaseOfALongTurn_IsRenewed) {
  OpenOne(kShortLease);
  auto turn = Begin(one_.get(), "ann", "a", {5});
  ASSERT_TRUE(turn.ok());
  for (int part = 0; part < 6; ++part) {
    absl::SleepFor(kShortLease / 5);
    EXPECT_TRUE(one_->Upkeep().ok());
  }
  for (SessionStore* const store : {one_.get(), two_.get()}) {
    const auto info = store->Get("ann", "a");
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->lease.owner, "one");
    EXPECT_GT(info->lease.left, absl::ZeroDuration()) << "of the renewed one";
    EXPECT_LE(info->lease.left, kShortLease);
  }
  EXPECT_EQ(Begin(two_.get(), "ann", "a", {6}).status().code(), absl::StatusCode::kAborted);
  EXPECT_TRUE((*turn)->Commit({.tokens = {6}, .seed = 1, .detail = ""}, {}).ok());
}

TEST_F(ReplicasTest, DurabilityOfASessionInUseElsewhere_CannotMoveItAway) {
  SessionChange change;
  change.durability = Durability::kMemory;
  {
    auto turn = Begin(one_.get(), "ann", "a", {5});
    ASSERT_TRUE(turn.ok());
    EXPECT_EQ(two_->Update("ann", "a", change).status().code(), absl::StatusCode::kAborted);
    EXPECT_TRUE((*turn)->Commit({.tokens = {6}, .seed = 1, .detail = ""}, {}).ok());
  }
  ASSERT_TRUE(two_->Update("ann", "a", change).ok());
  EXPECT_EQ(TokensOf(two_.get(), "ann", "a"), (Tokens{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(one_->Get("ann", "a").status().code(), absl::StatusCode::kNotFound);
  change.durability = Durability::kSync;
  ASSERT_TRUE(two_->Update("ann", "a", change).ok());
  // What server one remembers is of the session before it went: it is told to read again, once.
  const absl::Status first = RunTurn(one_.get(), "ann", "a", {7}, {8}).status();
  EXPECT_TRUE(first.ok() || absl::IsAborted(first)) << first;
  if (!first.ok()) {
    EXPECT_TRUE(RunTurn(one_.get(), "ann", "a", {7}, {8}).ok());
  }
  EXPECT_EQ(TokensOf(two_.get(), "ann", "a"), (Tokens{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST_F(ReplicasTest, BrokenLease_LetsAnotherServerAppendAtOnce) {
  auto turn = Begin(one_.get(), "ann", "a", {5});
  ASSERT_TRUE(turn.ok());
  EXPECT_EQ(*two_->BreakLease("ann", "a"), "one");
  EXPECT_TRUE(RunTurn(two_.get(), "ann", "a", {7}, {8}).ok());
  EXPECT_EQ((*turn)->Commit({.tokens = {6}, .seed = 1, .detail = ""}, {}).status().code(), absl::StatusCode::kAborted);
}

TEST_F(ReplicasTest, ChangesOfTwoServers_AreBothKept_AlsoWhileOneHasATurn) {
  auto turn = Begin(one_.get(), "ann", "a", {5});
  ASSERT_TRUE(turn.ok());
  SessionChange labels;
  labels.labels = Labels{{"made", "elsewhere"}};
  ASSERT_TRUE(two_->Update("ann", "a", labels).ok());
  SessionChange pin;
  pin.pinned = true;
  ASSERT_TRUE(one_->Update("ann", "a", pin).ok());
  ASSERT_TRUE(one_->Fork("ann", "a", {}, Named("ann", "fork")).ok());
  ASSERT_TRUE((*turn)->Commit({.tokens = {6}, .seed = 1, .detail = ""}, {}).ok());
  for (SessionStore* const store : {one_.get(), two_.get()}) {
    EXPECT_EQ(store->Get("ann", "a")->spec.labels, *labels.labels);
    EXPECT_TRUE(store->Get("ann", "a")->spec.pinned);
  }
}

TEST_F(ReplicasTest, ForkMadeElsewhereDuringATurn_KeepsItsSnapshots) {
  options_.max_snapshots = 1;  // so that each turn's snapshot pushes the one before out
  OpenOne(absl::Seconds(30));
  {
    auto turn = Begin(one_.get(), "ann", "a", {5});
    ASSERT_TRUE(turn.ok());
    ASSERT_TRUE(two_->Fork("ann", "a", {}, Named("ann", "fork")).ok());
    const std::shared_ptr<const Snapshot> snapshot = FakeSnapshot({1, 2, 3, 4, 5});
    ASSERT_TRUE((*turn)->Commit({.tokens = {6}, .seed = 1, .detail = ""}, {&snapshot, 1}).ok());
  }
  const auto expect_kept = [&](const char* when) {
    const auto turn = Begin(two_.get(), "ann", "fork", {9});
    ASSERT_TRUE(turn.ok()) << turn.status();
    ASSERT_NE((*turn)->from(), nullptr) << when;
    EXPECT_EQ((*turn)->from()->position(), 3) << when;
  };
  expect_kept("after the turn");
  ASSERT_TRUE(RunTurn(one_.get(), "ann", "a", {7}, {8}, {7}).ok());
  expect_kept("after the next");
  ASSERT_TRUE(one_->Delete("ann", "a").ok());
  expect_kept("after the source is gone");
}

TEST_F(ReplicasTest, SnapshotThatAForkElsewhereAndItsSourceKeep_StaysWhenTheSourceGoes) {
  {
    auto turn = Begin(one_.get(), "ann", "a", {5});
    ASSERT_TRUE(turn.ok());
    ASSERT_TRUE(two_->Fork("ann", "a", {}, Named("ann", "fork")).ok());
    ASSERT_TRUE((*turn)->Commit({.tokens = {6}, .seed = 1, .detail = ""}, {}).ok());
  }
  ASSERT_TRUE(one_->Delete("ann", "a").ok()) << "whose last record was written by a server that knew of no fork";
  const auto turn = Begin(two_.get(), "ann", "fork", {9});
  ASSERT_TRUE(turn.ok()) << turn.status();
  ASSERT_NE((*turn)->from(), nullptr);
}

TEST_F(ReplicasTest, ChangesElsewhere_AreNotOverwrittenByASummary) {
  ASSERT_TRUE(RunTurn(one_.get(), "ann", "a", {7}, {8}).ok());
  SessionChange change;
  change.labels = Labels{{"made", "elsewhere"}};
  ASSERT_TRUE(two_->Update("ann", "a", change).ok());
  EXPECT_TRUE(one_->Drain(absl::Now() + absl::Seconds(10)).ok());
  EXPECT_EQ(two_->Get("ann", "a")->spec.labels, *change.labels);
  vault_->Crash();
  EXPECT_EQ((*Begin(two_.get(), "ann", "a", {9}))->from()->position(), 3) << "its snapshot went to the store";
}

}  // namespace
}  // namespace statehouse::testing
