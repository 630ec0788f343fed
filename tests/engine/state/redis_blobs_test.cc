#include "engine/state/redis_blobs.h"

#include <gtest/gtest.h>

#include "tests/engine/state/blob_store_cases.h"
#include "tests/support/redis_process.h"

namespace statehouse::testing {
namespace {

class RedisBlobsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!RedisProcess::IsInstalled()) GTEST_SKIP() << "no redis-server";
  }
  // A short time-out is for tests of a server that does not answer: a machine under load is late, too.
  void Start(std::vector<std::string> settings = {}, absl::Duration answer_timeout = absl::Seconds(5)) {
    redis_ = std::make_unique<RedisProcess>(absl::StrCat(::testing::TempDir(), "/redis-blobs.", getpid()),
                                            std::move(settings));
    ASSERT_TRUE(redis_->is_ready());
    RedisOptions options;
    options.port = redis_->port();
    options.answer_timeout = answer_timeout;
    options.longest_pause = absl::Milliseconds(200);
    client_ = std::make_shared<RedisClient>(options);
    blobs_ = std::make_unique<RedisBlobs>(client_, "store", 1000);  // many parts
  }
  int64_t NumKeys() { return client_->Run({"DBSIZE"})->integer; }

  std::unique_ptr<RedisProcess> redis_;
  std::shared_ptr<RedisClient> client_;
  std::unique_ptr<RedisBlobs> blobs_;
};

TEST_F(RedisBlobsTest, Values_AreWholeOrNotThereAndLeaveNothing) {
  Start();
  ExpectValuesAreWholeOrNotThere(blobs_.get());
  EXPECT_EQ(NumKeys(), 0) << "parts of values that were replaced or removed";
}
TEST_F(RedisBlobsTest, Keys_AreListedInOrderAndInPages) {
  Start();
  ExpectListsInOrder(blobs_.get());
}
TEST_F(RedisBlobsTest, StrangeKeys_AreRefused) {
  Start();
  ExpectStrangeKeysAreRefused(blobs_.get());
}
TEST_F(RedisBlobsTest, Quarantine_HidesAValue) {
  Start();
  ExpectQuarantineHides(blobs_.get());
}
TEST_F(RedisBlobsTest, TwoServers_ReplaceOneValueAtomically) {
  Start();
  RedisBlobs other(client_, "store", 700);
  ExpectReplacementIsAtomic(blobs_.get(), &other);
}

TEST_F(RedisBlobsTest, ValueOfTheUsualPartSize_ComesBack) {
  Start();
  RedisBlobs usual(client_, "store");
  const auto value = BlobOf(RedisBlobs::kPartBytes * 2 + 12'345, 3);
  ASSERT_TRUE(PutBlob(&usual, "a/big", value).ok());
  EXPECT_TRUE(*usual.Get("a/big") == value);
  EXPECT_EQ(NumKeys(), 5) << "three parts, a head, the list of keys";
}

TEST_F(RedisBlobsTest, DamagedOrMissingPart_IsDataLoss) {
  Start();
  ASSERT_TRUE(PutBlob(blobs_.get(), "a/one", BlobOf(2500, 1)).ok());
  const std::string nonce = client_->Run({"HGET", "statehouse:blob:a/one", "nonce"})->text;
  const std::string part = absl::StrCat("statehouse:part:a/one:", nonce, ":1");
  ASSERT_TRUE(client_->Run({"SETRANGE", part, "10", "x"}).ok());
  EXPECT_TRUE(absl::IsDataLoss(blobs_->Get("a/one").status()));
  ASSERT_TRUE(client_->Run({"DEL", part}).ok());
  EXPECT_TRUE(absl::IsDataLoss(blobs_->Get("a/one").status()));
}

TEST_F(RedisBlobsTest, FullServer_IsResourceExhaustedAndLosesNothing) {
  Start({"--maxmemory", "8mb", "--maxmemory-policy", "noeviction"});
  RedisBlobs blobs(client_, "store", 1 << 20);
  ASSERT_TRUE(PutBlob(&blobs, "a/one", BlobOf(1'000'000, 1)).ok());
  const absl::Status full = PutBlob(&blobs, "a/two", BlobOf(20'000'000, 2));
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  EXPECT_TRUE(*blobs.Get("a/one") == BlobOf(1'000'000, 1));
  EXPECT_TRUE(absl::IsNotFound(blobs.Get("a/two").status()));
  EXPECT_TRUE(PutBlob(&blobs, "a/three", BlobOf(1'000'000, 3)).ok()) << "what did not fit has gone again";
}

TEST_F(RedisBlobsTest, PausedServer_IsUnavailableInTime) {
  Start({}, absl::Milliseconds(500));
  ASSERT_TRUE(PutBlob(blobs_.get(), "a/one", BlobOf(10, 1)).ok());
  redis_->Pause();
  const absl::Time begin = absl::Now();
  EXPECT_TRUE(absl::IsUnavailable(blobs_->Get("a/one").status()));
  EXPECT_TRUE(absl::IsUnavailable(PutBlob(blobs_.get(), "a/two", BlobOf(10, 1))));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  redis_->Continue();
  absl::SleepFor(absl::Milliseconds(500));
  EXPECT_EQ(*blobs_->Get("a/one"), BlobOf(10, 1));
}

TEST_F(RedisBlobsTest, WrongPassword_IsPermissionDenied) {
  Start({"--requirepass", "secret"});
  EXPECT_TRUE(absl::IsPermissionDenied(blobs_->Get("a/one").status())) << "none given";
  RedisOptions options;
  options.port = redis_->port();
  options.password = "wrong";
  const auto refused = RedisClient(options).Run({"PING"});
  EXPECT_TRUE(absl::IsPermissionDenied(refused.status())) << refused.status();
  EXPECT_EQ(std::string(refused.status().message()).find("wrong"), std::string::npos);
  options.password = "secret";
  EXPECT_TRUE(RedisClient(options).Run({"PING"}).ok());
}

}  // namespace
}  // namespace statehouse::testing
