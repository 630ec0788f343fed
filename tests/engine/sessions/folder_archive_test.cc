#include "engine/sessions/folder_archive.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/engine/sessions/shared_archive_cases.h"

namespace statehouse::testing {
namespace {

class FolderArchiveTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove_all(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::unique_ptr<SessionArchive> Open() {
    auto archive = FolderArchive::Open(folder_);
    EXPECT_TRUE(archive.ok()) << archive.status();
    return *std::move(archive);
  }
  std::vector<std::string> FilesBelow(const std::string& path) {
    std::vector<std::string> files;
    for (const auto& file : std::filesystem::recursive_directory_iterator(folder_ + "/" + path)) {
      if (file.is_regular_file()) files.push_back(file.path());
    }
    std::sort(files.begin(), files.end());
    return files;
  }
  const std::string folder_ = absl::StrCat(::testing::TempDir(), "/archive.", getpid());
  const OpenArchive open_ = [this] { return Open(); };
};

TEST_F(FolderArchiveTest, Entries_AreFoundByTheirOwner) { ExpectEntriesAreFoundByTheirOwner(open_); }
TEST_F(FolderArchiveTest, Name_HasOneHolderWhoeverIsFaster) { ExpectNameHasOneHolder(open_); }
TEST_F(FolderArchiveTest, Records_ComeInOrderAndAreCompacted) { ExpectRecordsComeInOrder(open_); }
TEST_F(FolderArchiveTest, Leases_FenceWhoeverHadOneBefore) { ExpectLeasesFence(open_); }
TEST_F(FolderArchiveTest, Leases_RunOutAndAreRenewed) { ExpectLeasesRunOutAndAreRenewed(open_); }
TEST_F(FolderArchiveTest, ServerThatSleptBeyondItsLease_CannotAppend) {
  ExpectServerThatSleptBeyondItsLeaseCannotAppend(open_);
}
TEST_F(FolderArchiveTest, ProcessesThatStopAtRandom_AppendEachRecordOnce) {
  ExpectProcessesThatStopAtRandomAppendEachRecordOnce(open_);
}

TEST_F(FolderArchiveTest, ServerThatKnowsOnlyOldSlots_CannotPutARecordWhereOneWasRemoved) {
  const auto left = Open();
  const auto right = Open();
  ASSERT_TRUE(left->PutEntry(EntryOf(1, "ann", "")).ok());
  const auto lease = left->Acquire(IdOf(1), "left", absl::Minutes(1));
  ASSERT_TRUE(left->Append(IdOf(1), 1, lease->fence, "one", true).ok());
  ASSERT_TRUE(right->Read(IdOf(1)).ok());  // right knows the log as far as this
  ASSERT_TRUE(left->Append(IdOf(1), 2, lease->fence, "two", true).ok());
  ASSERT_TRUE(left->Compact(IdOf(1), 2, lease->fence, "both").ok());
  // Even under the right lease, which only a copy of it can have.
  EXPECT_EQ(right->Append(IdOf(1), 2, lease->fence, "x", true).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(left->Read(IdOf(1))->records, std::vector<std::string>{"both"});
  EXPECT_TRUE(right->Append(IdOf(1), 3, lease->fence, "three", true).ok());
  EXPECT_EQ(left->Read(IdOf(1))->records, (std::vector<std::string>{"both", "three"}));
}

TEST_F(FolderArchiveTest, ServerThatDiedAfterSealing_LeavesTheRestToTheNext) {
  SharedFolder* folder = nullptr;
  auto opened = SharedFolder::Open(folder_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  folder = opened->get();
  FolderLog log(folder);
  ASSERT_TRUE(Open()->PutEntry(EntryOf(1, "ann", "")).ok());
  const std::string session = FolderCatalog::SessionPath(IdOf(1));
  auto state = log.Load(session, nullptr);
  ASSERT_TRUE(state.ok()) << state.status();
  LogEntry entry;
  entry.number = 1;
  entry.record = "one";
  ASSERT_TRUE(log.Put(session, entry, &*state, nullptr).ok());
  entry.kind = LogEntry::Kind::kSeal;
  entry.record = "all";
  ASSERT_TRUE(log.Put(session, entry, &*state, nullptr).ok());
  // Here it died: there is no next generation yet.
  const auto archive = Open();
  EXPECT_EQ(archive->Read(IdOf(1))->records, std::vector<std::string>{"all"});
  EXPECT_TRUE(archive->Append(IdOf(1), 2, 0, "two", true).ok());
  EXPECT_EQ(Open()->Read(IdOf(1))->records, (std::vector<std::string>{"all", "two"}));
  EXPECT_EQ(FilesBelow(session).size(), 3u) << "entry, base and one record";
}

TEST_F(FolderArchiveTest, RemovalThatWasCutShort_CountsNoLongerThanTheNextLook) {
  const auto archive = Open();
  const std::string ann = "ann";
  for (int number = 1; number <= 3; ++number) ASSERT_TRUE(archive->PutEntry(EntryOf(number, ann, "")).ok());
  // Here the server died: the session is gone, and its marker is not.
  std::filesystem::remove_all(folder_ + "/" + FolderCatalog::SessionPath(IdOf(2)));
  const auto listed = archive->ListEntries(&ann, "", 10);
  ASSERT_TRUE(listed.ok()) << listed.status();
  EXPECT_EQ(listed->size(), 2u);
  EXPECT_EQ(*archive->CountEntries(ann), 2);
  ASSERT_TRUE(archive->PutEntry(EntryOf(2, ann, "")).ok());
  EXPECT_EQ(*archive->CountEntries(ann), 3);
}

TEST_F(FolderArchiveTest, DamagedFile_IsDataLossNamedAndNeverRead) {
  const auto archive = Open();
  ASSERT_TRUE(archive->PutEntry(EntryOf(1, "ann", "")).ok());
  ASSERT_TRUE(archive->Append(IdOf(1), 1, 0, "one", true).ok());
  for (const std::string& path : FilesBelow("sessions")) {
    std::string whole;
    {
      std::ifstream file(path, std::ios::binary);
      whole.assign(std::istreambuf_iterator<char>(file), {});
    }
    for (size_t at = 0; at < whole.size(); ++at) {
      for (const bool cut : {false, true}) {
        std::string damaged = whole;
        if (cut) {
          damaged.resize(at);
        } else {
          damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
        }
        std::ofstream(path, std::ios::binary | std::ios::trunc) << damaged;
        const absl::Status status =
            path.ends_with("entry") ? archive->FindEntry("ann", IdOf(1)).status() : archive->Read(IdOf(1)).status();
        ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << path << " byte " << at << ": " << status;
        ASSERT_THAT(std::string(status.message()), ::testing::HasSubstr(path));
      }
    }
    std::ofstream(path, std::ios::binary | std::ios::trunc) << whole;
  }
  EXPECT_EQ(archive->Read(IdOf(1))->records, std::vector<std::string>{"one"});
}

TEST_F(FolderArchiveTest, FolderThatCannotBeMade_IsAnErrorThatNamesIt) {
  std::ofstream(folder_) << "a file is in the way";
  const auto archive = FolderArchive::Open(folder_);
  EXPECT_FALSE(archive.ok());
  EXPECT_THAT(std::string(archive.status().message()), ::testing::HasSubstr(folder_));
}

}  // namespace
}  // namespace statehouse::testing
