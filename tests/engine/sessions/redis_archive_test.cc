#include "engine/sessions/redis_archive.h"

#include <gtest/gtest.h>

#include "tests/engine/sessions/shared_archive_cases.h"
#include "tests/support/redis_process.h"

namespace statehouse::testing {
namespace {

class RedisArchiveTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!RedisProcess::IsInstalled()) GTEST_SKIP() << "no redis-server";
    redis_ = std::make_unique<RedisProcess>(absl::StrCat(::testing::TempDir(), "/redis.", getpid()));
    ASSERT_TRUE(redis_->is_ready());
  }
  // A short time-out is for tests of a server that does not answer: a machine under load is late, too.
  std::unique_ptr<SessionArchive> Open(absl::Duration answer_timeout = absl::Seconds(5)) {
    RedisOptions options;
    options.port = redis_->port();
    options.answer_timeout = answer_timeout;
    options.longest_pause = absl::Milliseconds(200);
    return std::make_unique<RedisArchive>(std::make_shared<RedisClient>(options));
  }
  std::unique_ptr<RedisProcess> redis_;
  const OpenArchive open_ = [this] { return Open(); };
};

TEST_F(RedisArchiveTest, Entries_AreFoundByTheirOwner) { ExpectEntriesAreFoundByTheirOwner(open_); }
TEST_F(RedisArchiveTest, Name_HasOneHolderWhoeverIsFaster) { ExpectNameHasOneHolder(open_); }
TEST_F(RedisArchiveTest, Records_ComeInOrderAndAreCompacted) { ExpectRecordsComeInOrder(open_); }
TEST_F(RedisArchiveTest, Leases_FenceWhoeverHadOneBefore) { ExpectLeasesFence(open_); }
TEST_F(RedisArchiveTest, Leases_RunOutAndAreRenewed) { ExpectLeasesRunOutAndAreRenewed(open_); }
TEST_F(RedisArchiveTest, ServerThatSleptBeyondItsLease_CannotAppend) {
  ExpectServerThatSleptBeyondItsLeaseCannotAppend(open_);
}
TEST_F(RedisArchiveTest, ProcessesThatStopAtRandom_AppendEachRecordOnce) {
  ExpectProcessesThatStopAtRandomAppendEachRecordOnce(open_);
}

TEST_F(RedisArchiveTest, SameRecordAgain_IsTheAppendWhoseAnswerWasLost) {
  const auto archive = Open();
  ASSERT_TRUE(archive->PutEntry(EntryOf(1, "ann", "")).ok());
  ASSERT_TRUE(archive->Append(IdOf(1), 1, 0, "one", true).ok());
  EXPECT_TRUE(archive->Append(IdOf(1), 1, 0, "one", true).ok());
  EXPECT_TRUE(absl::IsAborted(archive->Append(IdOf(1), 1, 0, "another", true)));
  EXPECT_EQ(archive->Read(IdOf(1))->records, std::vector<std::string>{"one"});
}

TEST_F(RedisArchiveTest, PausedServer_IsUnavailableInTimeAndIsFoundAgain) {
  ASSERT_TRUE(Open()->PutEntry(EntryOf(1, "ann", "")).ok());
  const auto lease = Open()->Acquire(IdOf(1), "left", absl::Minutes(1));
  ASSERT_TRUE(lease.ok()) << lease.status();
  const auto archive = Open(absl::Milliseconds(500));
  redis_->Pause();
  absl::Time begin = absl::Now();
  EXPECT_TRUE(absl::IsUnavailable(archive->Append(IdOf(1), 1, lease->fence, "one", true)));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(4));
  begin = absl::Now();
  EXPECT_TRUE(absl::IsUnavailable(archive->Read(IdOf(1)).status())) << "it is left alone for a while";
  redis_->Continue();
  absl::Status status;
  for (int attempt = 0; attempt < 100; ++attempt) {
    status = archive->Append(IdOf(1), 1, lease->fence, "one", true);
    if (status.ok()) break;
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    absl::SleepFor(absl::Milliseconds(50));
  }
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(Open()->Read(IdOf(1))->records, std::vector<std::string>{"one"}) << "appended once, asked for twice";
}

TEST_F(RedisArchiveTest, ServerKilledAndStartedAgain_HasEveryAcknowledgedRecord) {
  const auto archive = Open();
  ASSERT_TRUE(archive->PutEntry(EntryOf(1, "ann", "notes")).ok());
  std::vector<std::string> acknowledged;
  for (int round = 0; round < 3; ++round) {
    for (int record = 0; record < 10; ++record) {
      const std::string text = absl::StrCat(round, ".", record);
      const int64_t number = static_cast<int64_t>(acknowledged.size()) + 1;
      ASSERT_TRUE(archive->Append(IdOf(1), number, 0, text, true).ok());
      acknowledged.push_back(text);
    }
    redis_->Kill();
    EXPECT_TRUE(absl::IsUnavailable(archive->Append(IdOf(1), 1 + 10 * (round + 1), 0, "x", true)));
    redis_->Start();
    ASSERT_TRUE(redis_->is_ready());
    absl::SleepFor(absl::Milliseconds(300));  // longer than any back-off here
    EXPECT_EQ(archive->Read(IdOf(1))->records, acknowledged);
    EXPECT_TRUE(archive->FindEntry("ann", "notes").ok());
  }
}

}  // namespace
}  // namespace statehouse::testing
