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
  // A death test's child makes the fixture anew: it uses the folder that its parent looks into.
  RunFoldersTest() {
    if (const char* inherited = std::getenv(kFolder); inherited != nullptr) {
      parent_ = inherited;
      return;
    }
    std::string pattern = (fs::temp_directory_path() / "run_folders_test_XXXXXX").string();
    parent_ = mkdtemp(pattern.data());
    setenv(kFolder, parent_.c_str(), 1);
  }
  ~RunFoldersTest() override {
    unsetenv(kFolder);
    fs::remove_all(parent_);
  }
  static constexpr char kFolder[] = "RUN_FOLDERS_TEST_FOLDER";

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

TEST_F(RunFoldersTest, FoldersInOneParent_AreTwoAndNoneThatWasThere) {
  RunFolders folders;
  const auto disk = folders.Make("--disk", parent_.string()), store = folders.Make("--store-folder", parent_.string());
  ASSERT_TRUE(disk.ok() && store.ok()) << disk.status() << store.status();
  EXPECT_NE(*disk, *store);
  {
    RunFolders others;
    EXPECT_FALSE(others.Make("--disk", parent_.string()).ok()) << "of the same process, and there already";
  }
  EXPECT_TRUE(fs::is_directory(*disk)) << "removed by somebody who did not make it";
}

TEST_F(RunFoldersTest, SignalThatTheCallerIgnores_StaysIgnored) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        signal(SIGHUP, SIG_IGN);
        {
          RunFolders folders;
          kill(getpid(), SIGHUP);
          usleep(300'000);
        }
        _exit(7);
      },
      ::testing::ExitedWithCode(7), "");
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
          std::ofstream(parent_ / "was_here") << "x";
          kill(getpid(), signal);
          sleep(20);
          _exit(2);
        },
        ::testing::KilledBySignal(signal), "");
    EXPECT_TRUE(fs::remove(parent_ / "was_here")) << "the child was not in this folder";
    EXPECT_TRUE(fs::is_empty(parent_));
  }
}

}  // namespace
}  // namespace statehouse
