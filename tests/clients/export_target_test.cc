// Where an exported session goes: files that appear whole, links, pipes, and what is refused.
#include "clients/cli/export_target.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

namespace statehouse::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ExportTargetTest : public ::testing::Test {
 protected:
  ExportTargetTest() {
    char pattern[] = "/tmp/export_target_test_XXXXXX";
    folder_ = mkdtemp(pattern);
  }
  ~ExportTargetTest() override { fs::remove_all(folder_); }

  std::string File(const std::string& name) const { return (folder_ / name).string(); }
  static std::string Contents(const std::string& file) {
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    return text.str();
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  // Everything in one part.
  static absl::Status Put(const std::string& file, bool overwrite, const std::string& text) {
    auto target = ExportTarget::Open(file, overwrite);
    if (!target.ok()) return target.status();
    if (absl::Status status = (*target)->Append("id", text); !status.ok()) return status;
    return (*target)->Finish();
  }
  static absl::Status Refusal(const std::string& file) { return ExportTarget::Open(file, true).status(); }

  fs::path folder_;
};

TEST_F(ExportTargetTest, NothingReceived_LeavesNothing) {
  { ASSERT_TRUE(ExportTarget::Open(File("a"), false).ok()); }
  EXPECT_TRUE(Names().empty());
}

TEST_F(ExportTargetTest, BrokenOff_GoesOnWhereItEnded) {
  {
    auto target = ExportTarget::Open(File("a"), false);
    ASSERT_TRUE(target.ok());
    ASSERT_TRUE((*target)->Append("id", "first ").ok());
  }
  EXPECT_FALSE(fs::exists(File("a")));
  auto target = ExportTarget::Open(File("a"), false);
  ASSERT_TRUE(target.ok());
  EXPECT_EQ((*target)->id(), "id");
  EXPECT_EQ((*target)->offset(), 6);
  ASSERT_TRUE((*target)->Append("id", "second").ok());
  ASSERT_TRUE((*target)->Finish().ok());
  EXPECT_EQ(Contents(File("a")), "first second");
  EXPECT_EQ(Names(), std::vector<std::string>{"a"});
}

TEST_F(ExportTargetTest, RestartAfterAnEarlierTransfer_KeepsNothingOfIt) {
  {
    auto target = ExportTarget::Open(File("a"), false);
    ASSERT_TRUE((*target)->Append("old", "much more than the new one").ok());
  }
  auto target = ExportTarget::Open(File("a"), false);
  ASSERT_TRUE((*target)->Restart().ok());
  EXPECT_EQ((*target)->offset(), 0);
  ASSERT_TRUE((*target)->Append("new", "little").ok());
  ASSERT_TRUE((*target)->Finish().ok());
  EXPECT_EQ(Contents(File("a")), "little");
}

TEST_F(ExportTargetTest, AFileThatIsThere_IsReplacedOnlyWhenAskedTo) {
  ASSERT_TRUE(Put(File("a"), false, "one").ok());
  EXPECT_EQ(Put(File("a"), false, "two").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Contents(File("a")), "one");
  ASSERT_TRUE(Put(File("a"), true, "two").ok());
  EXPECT_EQ(Contents(File("a")), "two");
}

TEST_F(ExportTargetTest, ALink_IsFollowedAndStays) {
  fs::create_directory(File("other"));
  fs::create_symlink("other/real", File("link"));
  ASSERT_TRUE(Put(File("link"), false, "through a link to nothing").ok());
  EXPECT_TRUE(fs::is_symlink(File("link")));
  EXPECT_EQ(Contents(File("other/real")), "through a link to nothing");
  ASSERT_TRUE(Put(File("link"), true, "again").ok());
  EXPECT_TRUE(fs::is_symlink(File("link")));
  EXPECT_EQ(Contents(File("other/real")), "again");
}

TEST_F(ExportTargetTest, ALinkToItself_IsAnError) {
  fs::create_symlink("loop", File("loop"));
  EXPECT_THAT(std::string(Refusal(File("loop")).message()), HasSubstr("loop: cannot write"));
}

TEST_F(ExportTargetTest, APipe_IsWrittenInPlaceAndStaysOne) {
  ASSERT_EQ(mkfifo(File("pipe").c_str(), 0600), 0);
  std::string read_back;
  std::thread reader([&] { read_back = Contents(File("pipe")); });
  const absl::Status status = Put(File("pipe"), true, "in place");
  reader.join();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(read_back, "in place");
  EXPECT_TRUE(fs::is_fifo(File("pipe")));
  EXPECT_EQ(Names(), std::vector<std::string>{"pipe"});
}

TEST_F(ExportTargetTest, APipeThatHoldsBytes_CannotBeginAgain) {
  ASSERT_EQ(mkfifo(File("pipe").c_str(), 0600), 0);
  const int reader = open(File("pipe").c_str(), O_RDONLY | O_NONBLOCK);
  auto target = ExportTarget::Open(File("pipe"), false);
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_TRUE((*target)->Restart().ok()) << "nothing was written yet";
  ASSERT_TRUE((*target)->Append("id", "x").ok());
  EXPECT_EQ((*target)->Restart().code(), absl::StatusCode::kAborted);
  close(reader);
}

TEST_F(ExportTargetTest, ADeviceThatIsFull_SaysSoAndIsStillADevice) {
  // Not to be overwritten: if it were taken for a file, it would at least stay.
  fs::create_symlink("/dev/full", File("full"));
  const absl::Status status = Put(File("full"), false, "x");
  EXPECT_THAT(std::string(status.message()), HasSubstr("full: cannot write: No space left on device"));
  EXPECT_TRUE(fs::is_symlink(File("full")));
  EXPECT_EQ(Names(), std::vector<std::string>{"full"});
}

TEST_F(ExportTargetTest, WhatTakesNoBytes_IsRefusedByName) {
  EXPECT_THAT(std::string(Refusal("").message()), HasSubstr("FILE: \"\" is not allowed"));
  EXPECT_THAT(std::string(Refusal(File(".")).message()), HasSubstr("is a folder"));
  EXPECT_TRUE(Names().empty());
}

}  // namespace
}  // namespace statehouse::cli
