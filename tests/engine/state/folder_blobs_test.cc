#include "engine/state/folder_blobs.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/engine/state/blob_store_cases.h"
#include "tests/support/crash_files.h"

namespace statehouse::testing {
namespace {

class FolderBlobsTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove_all(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::unique_ptr<FolderBlobs> Open(bool shared = false) {
    auto opened = FolderBlobs::Open(FileLayer::Posix(), folder_, "disk", shared);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return *std::move(opened);
  }
  const std::string folder_ = absl::StrCat(::testing::TempDir(), "/blobs.", getpid());
};

TEST_F(FolderBlobsTest, Values_AreWholeOrNotThere) { ExpectValuesAreWholeOrNotThere(Open().get()); }
TEST_F(FolderBlobsTest, Keys_AreListedInOrderAndInPages) { ExpectListsInOrder(Open().get()); }
TEST_F(FolderBlobsTest, StrangeKeys_AreRefused) { ExpectStrangeKeysAreRefused(Open().get()); }

TEST_F(FolderBlobsTest, ValueThatIsOpen_IsReadToItsEndAlsoWhenItIsRemovedOrReplaced) {
  const auto blobs = Open();
  ASSERT_TRUE(PutBlob(blobs.get(), "a/one", BlobOf(5000, 1)).ok());
  const auto open = blobs->Open("a/one");
  ASSERT_TRUE(PutBlob(blobs.get(), "a/one", BlobOf(3000, 2)).ok());
  EXPECT_EQ(AllOf(open), BlobOf(5000, 1));
  ASSERT_TRUE(blobs->Remove("a/one").ok());
  EXPECT_EQ(AllOf(open), BlobOf(5000, 1));
}

TEST_F(FolderBlobsTest, FileThatIsCutOffWhileItIsRead_IsDamage) {
  const auto blobs = Open();
  ASSERT_TRUE(PutBlob(blobs.get(), "a/one", BlobOf(5000, 1)).ok());
  const auto open = blobs->Open("a/one");
  ASSERT_TRUE(open.ok());
  std::filesystem::resize_file(folder_ + "/a/one", 4000);
  std::vector<std::byte> scratch(2000);
  EXPECT_TRUE((*open)->View(2000, scratch).ok());
  EXPECT_EQ((*open)->View(3000, scratch).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(FolderBlobsTest, TwoServers_ReplaceOneValueAtomically) {
  const auto left = Open(true);
  const auto right = Open(true);
  ExpectReplacementIsAtomic(left.get(), right.get());
}

TEST_F(FolderBlobsTest, Quarantine_HidesAValueAndKeepsItForAnOperator) {
  const auto blobs = Open();
  ExpectQuarantineHides(blobs.get());
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/quarantine/q_one"));
}

TEST_F(FolderBlobsTest, WhatACrashLeftHalfWritten_IsSweptByThisServerAtStart) {
  std::filesystem::create_directories(folder_ + "/incoming/of-another-life");
  std::ofstream(folder_ + "/incoming/of-another-life/1.tmp") << "half";
  Open(true);
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/incoming/of-another-life/1.tmp")) << "another server may be at it";
  Open(false);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/incoming/of-another-life"));
}

TEST_F(FolderBlobsTest, FolderOfAnotherProcess_IsRefused) {
  const auto mine = Open();
  const auto again = FolderBlobs::Open(FileLayer::Posix(), folder_, "disk", false);
  EXPECT_EQ(again.status().code(), absl::StatusCode::kFailedPrecondition) << again.status();
}

TEST_F(FolderBlobsTest, PowerLoss_LeavesWholeValuesOnly) {
  CrashFiles files(7);
  auto blobs = *FolderBlobs::Open(&files, "disk", "disk", false);
  ASSERT_TRUE(PutBlob(blobs.get(), "a/one", BlobOf(5000, 1)).ok());
  files.fail_sync_in = 0;
  EXPECT_FALSE(PutBlob(blobs.get(), "a/two", BlobOf(5000, 2)).ok());
  files.fail_sync_in = -1;
  files.Crash();
  blobs.reset();
  blobs = *FolderBlobs::Open(&files, "disk", "disk", false);
  EXPECT_EQ(*blobs->Get("a/one"), BlobOf(5000, 1));
  EXPECT_EQ(blobs->Get("a/two").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(FolderBlobsTest, FullDisk_IsResourceExhaustedAndLosesNothing) {
  CrashFiles files;
  const auto blobs = *FolderBlobs::Open(&files, "disk", "disk", false);
  ASSERT_TRUE(PutBlob(blobs.get(), "a/one", BlobOf(5000, 1)).ok());
  files.disk_bytes = 8000;
  EXPECT_EQ(PutBlob(blobs.get(), "a/one", BlobOf(5000, 2)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*blobs->Get("a/one"), BlobOf(5000, 1));
}

}  // namespace
}  // namespace statehouse::testing
