// Sessions on a disk that crashes: what was acknowledged is there afterwards, what was not is there whole or not at
// all.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "engine/sessions/local_archive.h"
#include "tests/engine/sessions/session_fixture.h"
#include "tests/support/crash_files.h"

namespace statehouse::testing {
namespace {

using Sessions = std::map<std::string, Tokens>;  // by name

class SessionCrashTest : public SessionStoreTest {
 protected:
  void OpenAll() {
    auto archive = LocalArchive::Open(files_.get(), "s");
    ASSERT_TRUE(archive.ok()) << archive.status();
    local_ = *std::move(archive);
    options_.archive = local_.get();
    store_ = OpenStore();
  }
  void Crash() {
    files_->power_off_in = 0;
    store_.reset();
    local_.reset();
    files_->Crash();
    vault_->Crash();
    OpenAll();
  }
  // Two sessions, one of them with a long past that a compaction would shorten.
  void MakeSessions(uint32_t seed) {
    store_.reset();
    local_.reset();
    files_ = std::make_unique<CrashFiles>(seed);
    OpenAll();
    ASSERT_TRUE(store_->Create(Named("ann", "a")).ok());
    ASSERT_TRUE(RunTurn(store_.get(), "ann", "a", {1, 2, 3}, {4}, {3}, "first").ok());
    ASSERT_TRUE(RunTurn(store_.get(), "ann", "a", {5, 6}, {7, 8}, {7}).ok());
    ASSERT_TRUE(store_->Create(Named("ann", "long")).ok());
    for (int round = 0; round < 3; ++round) {
      ASSERT_TRUE(RunTurn(store_.get(), "ann", "long", Tokens(1000, 300 + round), {9}).ok());
      if (round < 2) {
        ASSERT_TRUE(store_->Rewind("ann", "long", 2, false).ok());
      }
    }
    vault_->Settle();
  }
  Sessions Read() {
    Sessions sessions;
    const auto page = store_->List("ann", {}, "", 1000);
    EXPECT_TRUE(page.ok()) << page.status();
    for (const SessionInfo& info : page->sessions) {
      EXPECT_EQ(info.damage, "");
      sessions[info.spec.name] = TokensOf(store_.get(), "ann", info.id);
    }
    return sessions;
  }
  // The power goes at each file operation of `change`, in turn.
  void ExpectAllOrNothing(const std::function<absl::Status()>& change) {
    MakeSessions(0);
    const Sessions before = Read();
    ASSERT_TRUE(change().ok());
    const Sessions after = Read();
    Crash();
    ASSERT_EQ(Read(), after) << "acknowledged, and lost";
    for (int operation = 0;; ++operation) {
      for (uint32_t seed = 0; seed < 4; ++seed) {
        MakeSessions(seed);
        if (HasFatalFailure()) return;
        files_->power_off_in = operation;
        const absl::Status status = change();
        if (!files_->is_off()) {
          ASSERT_TRUE(status.ok()) << status;
          ASSERT_GT(operation, 0);
          return;
        }
        Crash();
        const Sessions found = Read();
        ASSERT_TRUE(found == after || (!status.ok() && found == before))
            << "operation " << operation << " seed " << seed << ": " << status;
        // And it goes on.
        for (const auto& [name, tokens] : found) {
          const auto turn = Begin(store_.get(), "ann", name, {1});
          ASSERT_TRUE(turn.ok()) << turn.status();
          ASSERT_EQ((*turn)->position_before(), static_cast<int64_t>(tokens.size()));
        }
      }
    }
  }

  std::unique_ptr<CrashFiles> files_;
  std::unique_ptr<LocalArchive> local_;
  std::unique_ptr<SessionStore> store_;
};

TEST_F(SessionCrashTest, PowerThatGoesInACreation_LeavesItWholeOrNotThere) {
  ExpectAllOrNothing([this] { return store_->Create(Named("ann", "new")).status(); });
}

TEST_F(SessionCrashTest, PowerThatGoesInATurn_LeavesItWholeOrNotThere) {
  ExpectAllOrNothing([this] { return RunTurn(store_.get(), "ann", "a", {9}, {10, 11}, {9}, "key").status(); });
}

TEST_F(SessionCrashTest, PowerThatGoesInACompaction_LosesNothing) {
  MakeSessions(0);
  const std::string id = store_->Get("ann", "long")->id;
  const std::string path = absl::StrCat("s/sessions/", id.substr(0, 2), "/", id);
  const size_t size = files_->bytes_of(path)->size();
  ASSERT_TRUE(store_->Rewind("ann", "long", 5, false).ok());
  ASSERT_LT(files_->bytes_of(path)->size(), size / 2) << "this change compacts, or the test is about nothing";
  ExpectAllOrNothing([this] { return store_->Rewind("ann", "long", 5, false).status(); });
}

TEST_F(SessionCrashTest, PowerThatGoesInAFork_LeavesItWholeOrNotThere) {
  ExpectAllOrNothing([this] { return store_->Fork("ann", "a", 5, Named("ann", "fork")).status(); });
}

TEST_F(SessionCrashTest, PowerThatGoesWhileGoingBack_LeavesOneOrTheOther) {
  ExpectAllOrNothing([this] { return store_->Rewind("ann", "a", 4, false).status(); });
}

TEST_F(SessionCrashTest, PowerThatGoesInADeletion_LeavesItWholeOrNotThere) {
  ExpectAllOrNothing([this] { return store_->Delete("ann", "a").status(); });
}

TEST_F(SessionCrashTest, PowerThatGoesInARenaming_LeavesOneNameOrTheOther) {
  ExpectAllOrNothing([this] {
    SessionChange change;
    change.name = "b";
    return store_->Update("ann", "a", change).status();
  });
}

TEST_F(SessionCrashTest, PowerThatGoesInAnImport_LeavesItWholeOrNotThere) {
  ExpectAllOrNothing([this] {
    SessionImage image;
    image.tokens = {1, 2, 3, 4};
    image.turns = {{0, 3, 4, 7}};
    image.snapshot = FakeSnapshot({1, 2});
    return store_->Adopt(Named("ann", "new"), image).status();
  });
}

TEST_F(SessionCrashTest, OutcomeOfAKey_SurvivesCrashAndCompaction) {
  MakeSessions(0);
  Crash();
  auto turn = Begin(store_.get(), "ann", "a", {1, 2, 3}, "first");
  ASSERT_TRUE(turn.ok());
  ASSERT_TRUE((*turn)->repeated().has_value());
  EXPECT_EQ((*turn)->repeated()->tokens, Tokens{4});
  clock_.Advance(absl::Hours(25));
  EXPECT_FALSE((*Begin(store_.get(), "ann", "a", {1, 2, 3}, "first"))->repeated().has_value());
}

TEST_F(SessionCrashTest, FullDisk_IsResourceExhausted_AndNothingIsLost) {
  MakeSessions(0);
  const Sessions before = Read();
  files_->disk_bytes = 1;
  EXPECT_EQ(RunTurn(store_.get(), "ann", "a", {9}, {10}, {}, "key").status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RunTurn(store_.get(), "ann", "a", {9}, {10}).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->Create(Named("ann", "new")).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->Fork("ann", "a", 5, Named("ann", "fork")).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->Rewind("ann", "a", 4, false).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Read(), before);
  files_->disk_bytes = int64_t{1} << 40;
  EXPECT_TRUE(RunTurn(store_.get(), "ann", "a", {9}, {10}, {}, "key").ok());
  const Sessions after = Read();
  Crash();
  EXPECT_EQ(Read(), after);
}

TEST_F(SessionCrashTest, TurnsWrittenBehind_AreThereAsFarAsTheyWereSynced) {
  MakeSessions(0);
  SessionSpec spec = Named("ann", "behind");
  spec.durability = Durability::kAsync;
  ASSERT_TRUE(store_->Create(spec).ok());
  Tokens expected;
  for (int32_t round = 0; round < 4; ++round) {
    ASSERT_TRUE(RunTurn(store_.get(), "ann", "behind", {round}, {round}).ok());
    expected.insert(expected.end(), 2, round);
  }
  ASSERT_TRUE(store_->Upkeep().ok());
  ASSERT_TRUE(RunTurn(store_.get(), "ann", "behind", {99}, {99}).ok());
  Crash();
  Tokens found = TokensOf(store_.get(), "ann", "behind");
  ASSERT_GE(found.size(), expected.size());
  if (found.size() > expected.size()) expected.insert(expected.end(), 2, 99);
  EXPECT_EQ(found, expected);
}

TEST_F(SessionCrashTest, SyncThatFailedOnce_IsNotTakenForDoneTheNextTime) {
  std::vector<std::string> heard;
  options_.on_upkeep_failure = [&heard](const std::string& what) { heard.push_back(what); };
  for (uint32_t seed = 0; seed < 16; ++seed) {
    MakeSessions(seed);
    heard.clear();
    SessionSpec spec = Named("ann", "behind");
    spec.durability = Durability::kAsync;
    ASSERT_TRUE(store_->Create(spec).ok());
    ASSERT_TRUE(RunTurn(store_.get(), "ann", "behind", {1}, {2}).ok());
    ASSERT_TRUE(RunTurn(store_.get(), "ann", "behind", {3}, {4}).ok());
    files_->fail_sync_in = 0;
    EXPECT_FALSE(store_->Upkeep().ok());
    EXPECT_FALSE(store_->Upkeep().ok()) << "as long as nothing can be synced";
    EXPECT_EQ(store_->totals().upkeep_failures, 2);
    EXPECT_NE(store_->totals().last_upkeep_failure.find("writing behind: "), std::string::npos);
    ASSERT_EQ(heard.size(), 1u) << "once a minute";
    EXPECT_NE(heard[0].find("writing behind: injected: sync failed"), std::string::npos) << heard[0];
    files_->fail_sync_in = -1;
    EXPECT_TRUE(store_->Upkeep().ok());
    EXPECT_TRUE(store_->Drain(absl::InfiniteFuture()).ok());
    Crash();
    EXPECT_EQ(TokensOf(store_.get(), "ann", "behind"), (Tokens{1, 2, 3, 4})) << "seed " << seed;
  }
  store_.reset();  // before what it tells
}

TEST_F(SessionCrashTest, RecordsCutOffBehindOurBack_AreNoticedAndTheSessionIsNotUsed) {
  MakeSessions(0);
  const std::string id = store_->Get("ann", "a")->id;
  const std::string path = absl::StrCat("s/sessions/", id.substr(0, 2), "/", id);
  store_.reset();  // writes how many records there are
  local_.reset();
  files_->bytes_of(path)->resize(files_->bytes_of(path)->size() - 10);
  OpenAll();
  EXPECT_EQ(store_->Get("ann", "a").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Begin(store_.get(), "ann", "a", {1}).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(RunTurn(store_.get(), "ann", "long", {1}, {2}).ok()) << "others go on";
  const auto page = store_->List("ann", {}, "", 10);
  ASSERT_EQ(page->sessions.size(), 2u);
  EXPECT_NE(page->sessions[0].damage + page->sessions[1].damage, "");
  EXPECT_EQ(store_->totals().damaged, 1);
  EXPECT_EQ(store_->Check("ann", "")->damages.at(0).part, "journal");
  EXPECT_TRUE(store_->Delete("ann", "a").ok()) << "it can be deleted";
  EXPECT_EQ(store_->totals().damaged, 0);
  EXPECT_TRUE(store_->Create(Named("ann", "a")).ok());
}

// A process that commits turns and reports each one that was acknowledged, killed at a random instant.
TEST_F(SessionCrashTest, KilledProcess_LosesNoTurnThatWasAcknowledged) {
  const std::string folder = absl::StrCat(::testing::TempDir(), "session_crash.", getpid());
  std::mt19937 random(7);
  int32_t acknowledged = 0;  // of all lives
  for (int life = 0; life < 10; ++life) {
    int reports[2];
    ASSERT_EQ(pipe(reports), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto archive = LocalArchive::Open(FileLayer::Posix(), folder);
      if (!archive.ok()) _exit(1);
      options_.archive = archive->get();
      options_.vault = nullptr;
      auto store = SessionStore::Open(options_);
      if (!store.ok()) _exit(2);
      SessionSpec spec = Named("ann", "a");
      (void)(*store)->Create(spec);
      for (int32_t turn = 0; turn < 1 << 20; ++turn) {
        const auto outcome = RunTurn(store->get(), "ann", "a", {turn}, {turn}, {}, absl::StrCat(life, ".", turn));
        if (!outcome.ok()) _exit(3);
        const int32_t total = static_cast<int32_t>(outcome->num_tokens / 2);
        if (write(reports[1], &total, sizeof(total)) != sizeof(total)) _exit(4);
      }
      _exit(0);
    }
    close(reports[1]);
    int32_t total = 0;
    ASSERT_EQ(read(reports[0], &total, sizeof(total)), static_cast<ssize_t>(sizeof(total))) << "it never got going";
    usleep(random() % 100000);
    kill(child, SIGKILL);
    while (read(reports[0], &acknowledged, sizeof(acknowledged)) == static_cast<ssize_t>(sizeof(acknowledged))) {
    }
    acknowledged = std::max(acknowledged, total);
    close(reports[0]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit status " << WEXITSTATUS(status);

    auto archive = LocalArchive::Open(FileLayer::Posix(), folder);
    ASSERT_TRUE(archive.ok()) << archive.status();
    options_.archive = archive->get();
    options_.vault = nullptr;
    const auto store = OpenStore();
    const auto info = store->Get("ann", "a");
    ASSERT_TRUE(info.ok()) << info.status();
    ASSERT_GE(info->turns, acknowledged);
    ASSERT_LE(info->turns, acknowledged + 1) << "only the turn that was under way can be there too";
    acknowledged = static_cast<int32_t>(info->turns);
  }
  std::printf("%d turns in 10 lives\n", acknowledged);
  EXPECT_GT(acknowledged, 10);
  EXPECT_TRUE(FileLayer::Posix()->Remove(folder).ok());
}

}  // namespace
}  // namespace statehouse::testing
