// Records that were acknowledged are there after any crash, and nothing else is.
#include "engine/state/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "tests/support/crash_files.h"

namespace statehouse::testing {
namespace {

using Records = std::vector<std::string>;

// Opens or makes it. `*records`: all that were written, in order.
absl::StatusOr<std::unique_ptr<Journal>> OpenJournal(FileLayer* files, const std::string& path, Records* records) {
  auto contents = Journal::Read(files, path);
  if (!contents.ok()) return contents.status();
  *records = std::move(contents->records);
  return Journal::OpenAt(files, path, contents->whole_bytes);
}

Records ReadBack(FileLayer* files, const std::string& path) {
  Records records;
  auto journal = OpenJournal(files, path, &records);
  EXPECT_TRUE(journal.ok()) << journal.status();
  return records;
}

TEST(Journal, SyncedRecords_SurviveAnyCrashInOrder) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    CrashFiles files(seed);
    Records appended;
    size_t promised = 0;
    for (int life = 0; life < 4; ++life) {
      Records found;
      auto journal = OpenJournal(&files, "journal", &found);
      ASSERT_TRUE(journal.ok());
      // All that was promised, then perhaps more of what was appended, never anything else.
      ASSERT_GE(found.size(), promised) << "seed " << seed;
      ASSERT_LE(found.size(), appended.size());
      appended.resize(found.size());
      ASSERT_EQ(found, appended) << "seed " << seed;
      promised = found.size();
      for (uint32_t count = random() % 8; count > 0; --count) {
        const std::string record(random() % 300, static_cast<char>('a' + appended.size() % 26));
        const bool sync = random() % 2 == 0;
        ASSERT_TRUE((*journal)->Append(record, sync).ok());
        appended.push_back(record);
        if (sync) promised = appended.size();
      }
      files.Crash();
    }
  }
}

TEST(Journal, FullDisk_LosesNothingAndGoesOnOnceThereIsRoom) {
  CrashFiles files;
  Records records;
  auto journal = *OpenJournal(&files, "journal", &records);
  ASSERT_TRUE(journal->Append("first", true).ok());
  files.disk_bytes = 30;
  for (int attempt = 0; attempt < 3; ++attempt) {
    EXPECT_EQ(journal->Append(std::string(100, 'x'), true).code(), absl::StatusCode::kResourceExhausted);
  }
  files.disk_bytes = 1000;
  ASSERT_TRUE(journal->Append("second", true).ok());
  EXPECT_EQ(ReadBack(&files, "journal"), (Records{"first", "second"}));
}

TEST(Journal, FailedSync_PromisesNothingMore) {
  CrashFiles files;
  Records records;
  auto journal = *OpenJournal(&files, "journal", &records);
  files.fail_sync_in = 1;
  EXPECT_TRUE(journal->Append("first", true).ok());
  EXPECT_FALSE(journal->Append("second", true).ok());
  files.fail_sync_in = -1;
  EXPECT_FALSE(journal->Append("third", true).ok()) << "it may have lost the second";
  EXPECT_EQ(ReadBack(&files, "journal").at(0), "first");
}

TEST(Journal, DamagedRecord_EndsTheJournalThere) {
  CrashFiles files;
  Records records;
  auto journal = *OpenJournal(&files, "journal", &records);
  for (const char* record : {"one", "two", "three"}) ASSERT_TRUE(journal->Append(record, true).ok());
  const std::vector<std::byte> whole = *files.bytes_of("journal");
  for (size_t at = 0; at < whole.size(); ++at) {
    *files.bytes_of("journal") = whole;
    (*files.bytes_of("journal"))[at] ^= std::byte{4};
    const Records left = ReadBack(&files, "journal");
    ASSERT_LT(left.size(), 3u) << "byte " << at;
    ASSERT_TRUE(std::equal(left.begin(), left.end(), Records{"one", "two", "three"}.begin()));
  }
}

TEST(Journal, EmptyAndLargeRecords_AreKept) {
  CrashFiles files;
  Records records;
  const Records written = {"", std::string(1 << 20, 'z'), ""};
  auto journal = *OpenJournal(&files, "journal", &records);
  for (const std::string& record : written) ASSERT_TRUE(journal->Append(record, false).ok());
  EXPECT_EQ(ReadBack(&files, "journal"), written);
}

class PosixFilesTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(files_->MakeFolder(folder_ + "/a/b").ok()); }
  void TearDown() override { EXPECT_TRUE(files_->Remove(folder_).ok()); }
  FileLayer* const files_ = FileLayer::Posix();
  const std::string folder_ = absl::StrCat(::testing::TempDir(), "posix_files.", getpid());
};

TEST_F(PosixFilesTest, JournalOnDisk_IsReadBackAndCutWhereItIsTorn) {
  const std::string path = folder_ + "/a/b/journal";
  {
    Records records;
    auto journal = OpenJournal(files_, path, &records);
    ASSERT_TRUE(journal.ok()) << journal.status();
    for (const char* record : {"one", "two"}) ASSERT_TRUE((*journal)->Append(record, true).ok());
  }
  ASSERT_EQ(truncate(path.c_str(), 20), 0);
  EXPECT_EQ(ReadBack(files_, path), Records{"one"});
  Records records;
  auto journal = OpenJournal(files_, path, &records);
  ASSERT_TRUE((*journal)->Append("three", true).ok());
  EXPECT_EQ(ReadBack(files_, path), (Records{"one", "three"}));
}

TEST_F(PosixFilesTest, WholeFile_IsReplacedOrLeftAlone) {
  const std::string path = folder_ + "/a/file";
  const auto write = [&](std::string_view text, const absl::Status& then) {
    return files_->WriteWhole(path, [&](const ByteSink& sink) {
      const absl::Status status = sink(std::as_bytes(std::span(text)));
      return status.ok() ? then : status;
    });
  };
  EXPECT_TRUE(write("first", absl::OkStatus()).ok());
  EXPECT_FALSE(write("second", absl::InternalError("stop")).ok());
  const auto bytes = files_->Read(path);
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(bytes->size(), 5u);
  EXPECT_EQ(*files_->List(folder_ + "/a"), (Records{"b", "file"})) << "a temporary file was left";
  EXPECT_TRUE(files_->Rename(path, path + "2").ok());
  EXPECT_EQ(files_->Read(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(files_->MakeFolder(folder_ + "/" + std::string(300, 'x')).ok()) << "an error, and nothing is thrown";
  EXPECT_TRUE(files_->Remove(folder_ + "/a").ok());
  EXPECT_TRUE(files_->List(folder_ + "/a")->empty());
}

}  // namespace
}  // namespace statehouse::testing
