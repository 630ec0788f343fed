// A folder of sessions: what was promised is there after any crash, what is damaged is never used, and others go on.
#include "engine/sessions/local_archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/support/crash_files.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;
using Strings = std::vector<std::string>;

std::string Id(int number) { return absl::StrCat(absl::Hex(number, absl::kZeroPad16), "00000000000000ab"); }
std::string PathOf(int number) { return absl::StrCat("s/sessions/", Id(number).substr(0, 2), "/", Id(number)); }
SessionEntry Entry(int number, const std::string& name = "", const std::string& meta = "m") {
  return {.id = Id(number), .principal = "ann", .name = name, .meta = meta};
}
std::unique_ptr<LocalArchive> OpenArchive(FileLayer* files, int64_t max_open_files = 256) {
  auto archive = LocalArchive::Open(files, "s", max_open_files);
  EXPECT_TRUE(archive.ok()) << archive.status();
  return archive.ok() ? *std::move(archive) : nullptr;
}

TEST(LocalArchive, EntriesAndRecords_AreThereAfterReopening) {
  CrashFiles files;
  auto archive = OpenArchive(&files);
  ASSERT_TRUE(archive->PutEntry(Entry(1, "a")).ok());
  ASSERT_TRUE(archive->PutEntry(Entry(2, "b")).ok());
  EXPECT_EQ(archive->PutEntry(Entry(3, "a")).code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(archive->Append(Id(1), 1, 0, "one", true).ok());
  ASSERT_TRUE(archive->Append(Id(1), 2, 0, "two", true).ok());
  EXPECT_EQ(archive->Append(Id(1), 2, 0, "other", true).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(archive->Append(Id(9), 1, 0, "x", true).code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(archive->PutEntry(Entry(2, "c", "changed")).ok());
  archive.reset();
  archive = OpenArchive(&files);
  EXPECT_EQ(archive->FindEntry("ann", "c")->meta, "changed");
  EXPECT_EQ(archive->FindEntry("ann", "b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(archive->FindEntry("bob", "a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(archive->Read(Id(1))->records, (Strings{"one", "two"}));
  EXPECT_TRUE(archive->Read(Id(2))->records.empty());
  EXPECT_EQ(*archive->CountEntries("ann"), 2);
  ASSERT_TRUE(archive->Append(Id(1), 3, 0, "three", true).ok());
  ASSERT_TRUE(archive->Remove(Id(1), 0).ok());
  EXPECT_FALSE(files.Stat(PathOf(1)).ok());
  archive.reset();
  EXPECT_EQ(OpenArchive(&files)->Read(Id(1)).status().code(), absl::StatusCode::kNotFound);
}

TEST(LocalArchive, SecondServer_IsRefusedTheFolder) {
  CrashFiles files;
  auto archive = OpenArchive(&files);
  EXPECT_EQ(LocalArchive::Open(&files, "s").status().code(), absl::StatusCode::kFailedPrecondition);
  archive.reset();
  EXPECT_TRUE(LocalArchive::Open(&files, "s").ok());
  const std::string folder = absl::StrCat(::testing::TempDir(), "local_archive.", getpid());
  {
    const auto first = LocalArchive::Open(FileLayer::Posix(), folder);
    ASSERT_TRUE(first.ok()) << first.status();
    const absl::Status second = LocalArchive::Open(FileLayer::Posix(), folder).status();
    EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(second.message()), HasSubstr(absl::StrCat("process ", getpid())));
  }
  EXPECT_TRUE(FileLayer::Posix()->Remove(folder).ok());
}

TEST(LocalArchive, Compaction_KeepsTheNumberAndShrinksTheFile) {
  CrashFiles files;
  auto archive = OpenArchive(&files);
  ASSERT_TRUE(archive->PutEntry(Entry(1)).ok());
  for (int number = 1; number <= 50; ++number) {
    ASSERT_TRUE(archive->Append(Id(1), number, 0, std::string(100, 'x'), true).ok());
  }
  const size_t before = files.bytes_of(PathOf(1))->size();
  EXPECT_EQ(archive->Compact(Id(1), 49, 0, "all").code(), absl::StatusCode::kAborted);
  ASSERT_TRUE(archive->Compact(Id(1), 50, 0, "all").ok());
  EXPECT_LT(files.bytes_of(PathOf(1))->size(), before / 10);
  ASSERT_TRUE(archive->Append(Id(1), 51, 0, "more", true).ok());
  archive.reset();
  const auto read = OpenArchive(&files)->Read(Id(1));
  EXPECT_EQ(read->first, 50);
  EXPECT_EQ(read->records, (Strings{"all", "more"}));
}

TEST(LocalArchive, Catalog_IsWrittenAnewWhenItHasGrown) {
  CrashFiles files;
  auto archive = OpenArchive(&files);
  size_t largest = 0;
  for (int round = 0; round < 3000; ++round) {
    ASSERT_TRUE(archive->PutEntry(Entry(round % 3, "", absl::StrCat("meta ", round))).ok());
    largest = std::max(largest, files.bytes_of("s/catalog")->size());
  }
  EXPECT_LT(largest, size_t{80} << 10);
  archive.reset();
  archive = OpenArchive(&files);
  EXPECT_EQ(archive->FindEntry("ann", Id(2))->meta, "meta 2999");
  EXPECT_EQ(archive->repairs(), "");
}

TEST(LocalArchive, MoreSessionsThanOpenFiles_AreAllKept) {
  CrashFiles files;
  auto archive = OpenArchive(&files, 2);
  for (int round = 1; round <= 3; ++round) {
    for (int number = 0; number < 10; ++number) {
      if (round == 1) {
        ASSERT_TRUE(archive->PutEntry(Entry(number)).ok());
      }
      ASSERT_TRUE(archive->Append(Id(number), round, 0, absl::StrCat(number), round % 2 == 0).ok());
    }
  }
  ASSERT_TRUE(archive->Sync().ok());
  files.Crash();
  archive.reset();
  archive = OpenArchive(&files);
  for (int number = 0; number < 10; ++number) {
    EXPECT_EQ(archive->Read(Id(number))->records, Strings(3, absl::StrCat(number)));
  }
}

TEST(LocalArchive, FullDisk_ChangesNothingAndGoesOnOnceThereIsRoom) {
  CrashFiles files;
  auto archive = OpenArchive(&files);
  ASSERT_TRUE(archive->PutEntry(Entry(1)).ok());
  ASSERT_TRUE(archive->Append(Id(1), 1, 0, "one", true).ok());
  files.disk_bytes = 300;
  EXPECT_EQ(archive->Append(Id(1), 2, 0, std::string(500, 'x'), true).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(archive->Compact(Id(1), 1, 0, std::string(500, 'x')).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(archive->PutEntry(Entry(2, std::string(500, 'n'))).code(), absl::StatusCode::kResourceExhausted);
  files.disk_bytes = 100000;
  ASSERT_TRUE(archive->Append(Id(1), 2, 0, "two", true).ok());
  ASSERT_TRUE(archive->PutEntry(Entry(2)).ok());
  files.Crash();
  archive.reset();
  archive = OpenArchive(&files);
  EXPECT_EQ(archive->Read(Id(1))->records, (Strings{"one", "two"}));
  EXPECT_EQ(*archive->CountEntries("ann"), 2);
}

TEST(LocalArchive, FullDisk_IsMadeRoomOnByRemovingASession) {
  CrashFiles files;
  auto archive = OpenArchive(&files);
  ASSERT_TRUE(archive->PutEntry(Entry(1)).ok());
  ASSERT_TRUE(archive->PutEntry(Entry(2)).ok());
  ASSERT_TRUE(archive->Append(Id(1), 1, 0, std::string(500, 'x'), true).ok());
  files.disk_bytes = static_cast<int64_t>(files.bytes_of("s/catalog")->size() + files.bytes_of(PathOf(1))->size());
  ASSERT_EQ(archive->Append(Id(2), 1, 0, "one", true).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(archive->Remove(Id(1), 0).ok());
  EXPECT_TRUE(archive->Append(Id(2), 1, 0, "one", true).ok());
  archive.reset();
  files.Crash();
  archive = OpenArchive(&files);
  EXPECT_EQ(archive->FindEntry("ann", Id(1)).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(archive->Read(Id(2))->records, Strings{"one"});
}

TEST(LocalArchive, FailedSync_IsUnavailable_AndTheFileIsWrittenAnew) {
  CrashFiles files;
  auto archive = OpenArchive(&files);
  ASSERT_TRUE(archive->PutEntry(Entry(1)).ok());
  ASSERT_TRUE(archive->Append(Id(1), 1, 0, "one", true).ok());
  files.fail_sync_in = 0;
  EXPECT_EQ(archive->Append(Id(1), 2, 0, "two", true).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(archive->Read(Id(1)).ok()) << "what may not be on disk is not shown";
  files.fail_sync_in = -1;
  const Strings read = archive->Read(Id(1))->records;
  EXPECT_EQ(read, (Strings{"one", "two"})) << "it was written after all";
  files.Crash();
  archive.reset();
  EXPECT_EQ(OpenArchive(&files)->Read(Id(1))->records, read) << "what was shown survives";
}

// Every byte of a session's file, flipped: what is used is all that was promised, but for the end of the last record,
// or nothing. Every length: what is used is a beginning of it.
TEST(LocalArchive, DamagedSession_IsNeverUsed_AndOthersGoOn) {
  CrashFiles files;
  const Strings records = {"record one", "record two", "record three", "record four"};
  size_t written_whole = 0;  // of a file: its head and first record
  {
    auto archive = OpenArchive(&files);
    for (int number = 1; number <= 2; ++number) {
      ASSERT_TRUE(archive->PutEntry(Entry(number)).ok());
      for (size_t idx = 0; idx < records.size(); ++idx) {
        ASSERT_TRUE(archive->Append(Id(number), static_cast<int64_t>(idx + 1), 0, records[idx], true).ok());
        if (idx == 0) written_whole = files.bytes_of(PathOf(number))->size();
      }
    }
  }
  const std::vector<std::byte> whole = *files.bytes_of(PathOf(1));
  int refused = 0;
  const auto check = [&](const std::string& what) {
    auto archive = OpenArchive(&files);
    const auto read = archive->Read(Id(1));
    if (read.ok()) {
      // Only the end of the last record can look like one that was never synced.
      EXPECT_GE(read->records.size(), 3u) << what;
      EXPECT_TRUE(std::equal(read->records.begin(), read->records.end(), records.begin())) << what;
    } else {
      EXPECT_EQ(read.status().code(), absl::StatusCode::kDataLoss) << what;
      EXPECT_EQ(archive->Append(Id(1), 5, 0, "more", true).code(), absl::StatusCode::kDataLoss) << what;
      ++refused;
    }
    EXPECT_EQ(archive->Read(Id(2))->records, records);
  };
  for (size_t at = 0; at < whole.size(); ++at) {
    *files.bytes_of(PathOf(1)) = whole;
    (*files.bytes_of(PathOf(1)))[at] ^= std::byte{1};
    check(absl::StrCat("byte ", at));
    if (HasFailure()) return;
  }
  EXPECT_GT(refused, static_cast<int>(whole.size()) / 2);
  *files.bytes_of(PathOf(1)) = *files.bytes_of(PathOf(2));
  EXPECT_EQ(OpenArchive(&files)->Read(Id(1)).status().code(), absl::StatusCode::kDataLoss) << "a foreign file";
  for (size_t size = 0; size < whole.size(); ++size) {
    *files.bytes_of(PathOf(1)) = {whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)};
    if (size < written_whole) {
      EXPECT_EQ(OpenArchive(&files)->Read(Id(1)).status().code(), absl::StatusCode::kDataLoss) << size << " bytes left";
    } else {
      // Records beyond the first were added at the end: nothing tells what is cut off from what was never synced.
      const auto read = OpenArchive(&files)->Read(Id(1));
      ASSERT_TRUE(read.ok()) << read.status() << ", " << size << " bytes left";
      EXPECT_TRUE(std::equal(read->records.begin(), read->records.end(), records.begin())) << size << " bytes left";
    }
  }
}

TEST(LocalArchive, DamagedCatalog_IsPutTogetherAgain) {
  CrashFiles files;
  {
    auto archive = OpenArchive(&files);
    for (int number = 1; number <= 5; ++number) {
      ASSERT_TRUE(archive->PutEntry(Entry(number, absl::StrCat("name ", number))).ok());
      ASSERT_TRUE(archive->Append(Id(number), 1, 0, "record", true).ok());
    }
    ASSERT_TRUE(archive->Remove(Id(5), 0).ok());
  }
  const std::vector<std::byte> whole = *files.bytes_of("s/catalog");
  for (size_t at = 0; at < whole.size(); ++at) {
    *files.bytes_of("s/catalog") = whole;
    (*files.bytes_of("s/catalog"))[at] ^= std::byte{0x40};
    auto archive = OpenArchive(&files);
    for (int number = 1; number <= 4; ++number) {
      ASSERT_TRUE(archive->FindEntry("ann", absl::StrCat("name ", number)).ok()) << "byte " << at;
      ASSERT_EQ(archive->Read(Id(number))->records, Strings{"record"}) << "byte " << at;
    }
    archive.reset();
    ASSERT_EQ(OpenArchive(&files)->repairs(), "") << "it is whole again";
  }
}

// Random lives of a few sessions, with the power going at any operation, against a plain model of what was promised.
TEST(LocalArchive, PowerThatGoesAtAnyOperation_CostsNothingThatWasPromised) {
  int64_t crashes = 0;
  for (uint32_t seed = 0; seed < 400; ++seed) {
    std::mt19937 random(seed);
    CrashFiles files(seed);
    struct Model {
      int64_t first = 1;  // of what was compacted, the number
      Strings records;    // by number − 1; compacted ones stay here
      size_t promised = 0;
      bool is_there = false;
      bool may_be_there = false;
    };
    std::map<int, Model> models;
    for (int life = 0; life < 4; ++life) {
      auto archive = OpenArchive(&files);
      ASSERT_NE(archive, nullptr);
      for (auto& [number, model] : models) {
        const auto entry = archive->FindEntry("ann", Id(number));
        ASSERT_TRUE(entry.ok() ? model.may_be_there : !model.is_there) << "seed " << seed << " session " << number;
        model.is_there = model.may_be_there = entry.ok();
        if (!entry.ok()) {
          model.records.clear();
          model.promised = 0;
          continue;
        }
        const auto read = archive->Read(Id(number));
        ASSERT_TRUE(read.ok()) << read.status() << " seed " << seed;
        const size_t count = static_cast<size_t>(read->first - 1) + read->records.size();
        ASSERT_GE(count, model.promised) << "seed " << seed;
        ASSERT_LE(count, model.records.size()) << "seed " << seed;
        for (size_t idx = static_cast<size_t>(read->first); idx < count; ++idx) {
          ASSERT_EQ(read->records[idx + 1 - static_cast<size_t>(read->first)], model.records[idx]) << "seed " << seed;
        }
        model.records.resize(count);
        model.promised = count;
      }
      files.power_off_in = life == 3 ? -1 : random() % 40;
      for (int step = 0; step < 30 && !files.is_off(); ++step) {
        const int number = static_cast<int>(random() % 4);
        Model& model = models[number];
        const uint32_t kind = random() % 12;
        if (!model.is_there) {
          model.may_be_there = true;
          model.is_there = archive->PutEntry(Entry(number)).ok();
        } else if (kind == 0) {
          model.is_there = false;
          model.may_be_there = !archive->Remove(Id(number), 0).ok();
          if (!model.may_be_there) model = Model();
        } else if (kind == 1 && !model.records.empty()) {
          const absl::Status status =
              archive->Compact(Id(number), static_cast<int64_t>(model.records.size()), 0, "compacted");
          if (status.ok()) model.promised = model.records.size();
        } else if (kind == 2) {
          if (archive->Sync().ok()) {
            for (auto& [other, synced] : models) synced.promised = synced.records.size();
          }
        } else {
          const bool sync = random() % 2 == 0;
          model.records.push_back(absl::StrCat(seed, ".", life, ".", step));
          const absl::Status status =
              archive->Append(Id(number), static_cast<int64_t>(model.records.size()), 0, model.records.back(), sync);
          ASSERT_TRUE(status.ok() || files.is_off()) << status << " seed " << seed;
          if (status.ok() && sync) model.promised = model.records.size();
        }
      }
      crashes += files.is_off() ? 1 : 0;
      archive.reset();
      files.Crash();
    }
  }
  std::printf("%lld crashes\n", static_cast<long long>(crashes));
  EXPECT_GT(crashes, 500);
}

}  // namespace
}  // namespace statehouse::testing
