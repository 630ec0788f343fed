// One address opens what servers share.
#include "engine/sessions/shared_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/errors.h"
#include "tests/support/redis_process.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

void ExpectWorks(const std::string& url) {
  for (const char* round : {"first", "second"}) {
    auto store = OpenSharedStore(url);
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_TRUE(store->archive->is_shared());
    EXPECT_EQ(store->blobs->name(), "store");
    if (std::string(round) == "first") {
      SessionEntry entry;
      entry.id = std::string(32, 'a');
      entry.principal = "ann";
      entry.name = "notes";
      ASSERT_TRUE(store->archive->PutEntry(entry).ok());
      ASSERT_TRUE(store->blobs->Put("a/b", [](const ByteSink&) { return absl::OkStatus(); }).ok());
    } else {
      EXPECT_TRUE(store->archive->FindEntry("ann", "notes").ok());
      EXPECT_TRUE(store->blobs->Get("a/b").ok());
    }
  }
}

TEST(SharedStore, Folder_IsOpenedByEveryServer) {
  const std::string folder = absl::StrCat(::testing::TempDir(), "/store.", getpid());
  ExpectWorks(folder);
  ExpectWorks("file://" + folder);
  std::filesystem::remove_all(folder);
}

TEST(SharedStore, Redis_IsOpenedAndWhatItMayLoseIsSaid) {
  if (!RedisProcess::IsInstalled()) GTEST_SKIP() << "no redis-server";
  const std::string folder = absl::StrCat(::testing::TempDir(), "/store-redis.", getpid());
  {
    RedisProcess redis(folder);
    ASSERT_TRUE(redis.is_ready());
    ExpectWorks(redis.url());
    EXPECT_TRUE(OpenSharedStore(redis.url())->warnings.empty());
    EXPECT_TRUE(absl::IsNotFound(OpenSharedStore(absl::StrCat("redis://localhost:", redis.port(), "/3"))
                                     ->archive->FindEntry("ann", "notes")
                                     .status()))
        << "another database";
  }
  RedisProcess careless(folder, {"--appendonly", "no", "--requirepass", "secret"});
  ASSERT_TRUE(careless.is_ready());
  const auto denied = OpenSharedStore(careless.url());
  EXPECT_TRUE(absl::IsPermissionDenied(denied.status())) << denied.status();
  setenv("STATEHOUSE_REDIS_PASSWORD", "secret", 1);
  const auto store = OpenSharedStore(careless.url());
  unsetenv("STATEHOUSE_REDIS_PASSWORD");
  ASSERT_TRUE(store.ok()) << store.status();
  ASSERT_FALSE(store->warnings.empty());
  EXPECT_THAT(store->warnings[0], HasSubstr("appendonly is no"));
  EXPECT_TRUE(OpenSharedStore(absl::StrCat("redis://default:secret@127.0.0.1:", careless.port())).ok());
  careless.Kill();
  const absl::Time begin = absl::Now();
  EXPECT_TRUE(absl::IsUnavailable(OpenSharedStore(careless.url()).status()));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
}

TEST(SharedStore, AddressThatIsNone_IsRefusedByFieldAndShowsNoPassword) {
  for (const char* url : {"", "relative/path", "http://x", "redis://", "redis://ann:hush@host:0", "redis://ann:hush@:1",
                          "redis://ann:hush@host:99999", "redis://ann:hush@host/nine", "redis://h:6379/99999"}) {
    const absl::Status status = OpenSharedStore(url).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << url << ": " << status;
    EXPECT_EQ(FieldOf(status), "--session-store") << url;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("hush"))) << url;
  }
  EXPECT_TRUE(absl::IsUnimplemented(OpenSharedStore("rediss://host").status()));
}

}  // namespace
}  // namespace statehouse::testing
