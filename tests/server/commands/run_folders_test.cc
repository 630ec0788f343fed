#include "server/commands/run_folders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace statehouse {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class RunFoldersTest : public ::testing::Test {
 protected:
  RunFoldersTest() {
    std::string pattern = (fs::temp_directory_path() / "run_folders_test_XXXXXX").string();
    parent_ = mkdtemp(pattern.data());
  }
  ~RunFoldersTest() override { fs::remove_all(parent_); }

  fs::path parent_;
};

TEST_F(RunFoldersTest, FolderOfARun_IsGoneAfterwards) {
  std::string folder;
  {
    RunFolders folders;
    const auto made = folders.Make("--disk", parent_.string());
    ASSERT_TRUE(made.ok()) << made.status();
    folder = *made;
    std::ofstream(fs::path(folder) / "file") << "x";
  }
  EXPECT_TRUE(fs::is_empty(parent_)) << folder;
}

TEST_F(RunFoldersTest, ParentThatIsNotThere_IsRefusedAndNotMade) {
  RunFolders folders;
  const fs::path nowhere = parent_ / "nowhere";
  const absl::Status status = folders.Make("--disk", nowhere.string()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--disk: " + nowhere.string()));
  EXPECT_FALSE(fs::exists(nowhere));
}

TEST_F(RunFoldersTest, Signal_EndsTheProcessWithoutLeavingAnything) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    EXPECT_EXIT(
        {
          RunFolders folders;
          const auto made = folders.Make("--disk", parent_.string());
          if (!made.ok()) _exit(1);
          std::ofstream(fs::path(*made) / "file") << "x";
          kill(getpid(), signal);
          sleep(20);
          _exit(2);
        },
        ::testing::KilledBySignal(signal), "");
  }
  EXPECT_TRUE(fs::is_empty(parent_));
}

}  // namespace
}  // namespace statehouse
