// A server with 100 000 sessions on its disk starts at once: it reads entries only, and a session when it is used.
// All of them have records in `make soak`; else every twentieth has, which only makes the test's own folder quicker to
// make.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <random>

#include "absl/strings/str_cat.h"
#include "engine/sessions/local_archive.h"
#include "tests/engine/sessions/session_fixture.h"
#include "tests/support/unsynced_files.h"

namespace statehouse::testing {
namespace {

constexpr int64_t kSessions = 100'000;
// The promise is a start within five seconds. A machine that does other things as well can only be held to processor
// time, of which half as much may go by.
constexpr double kMostProcessorSeconds = 2.5;
#ifdef STATEHOUSE_SANITIZED
constexpr bool kIsSanitized = true;
#else
constexpr bool kIsSanitized = false;
#endif

using SessionStartTest = SessionStoreTest;

TEST_F(SessionStartTest, HundredThousandSessions_TakeTwoAndAHalfSecondsOfProcessorTimeToStart) {
  const char* soak = std::getenv("STATEHOUSE_SOAK_SECONDS");
  const int64_t every = soak != nullptr && std::atoi(soak) > 0 ? 1 : 20;
  const std::string folder = absl::StrCat(::testing::TempDir(), "session_start.", getpid());
  UnsyncedFiles files;
  options_.vault = nullptr;
  options_.max_open_sessions = 100;
  options_.max_bytes_per_principal = int64_t{1} << 50;  // so that every entry is looked at
  {
    auto archive = LocalArchive::Open(&files, folder + "/sessions");
    ASSERT_TRUE(archive.ok()) << archive.status();
    options_.archive = archive->get();
    const auto store = OpenStore();
    Tokens input(60);
    for (int64_t idx = 0; idx < kSessions; ++idx) {
      SessionSpec spec = Named(idx % 10 == 0 ? "bob" : "ann", "");
      spec.name = absl::StrCat("session ", idx);
      spec.labels = {{"number", absl::StrCat(idx)}};
      ASSERT_TRUE(store->Create(spec).ok());
      if (idx % every != 0) continue;
      input[0] = static_cast<int32_t>(idx);
      ASSERT_TRUE(RunTurn(store.get(), spec.principal, spec.name, input, {1}).ok());
    }
  }

  const absl::Time begin = absl::Now();
  const std::clock_t begin_cpu = std::clock();
  auto archive = LocalArchive::Open(&files, folder + "/sessions");
  ASSERT_TRUE(archive.ok()) << archive.status();
  options_.archive = archive->get();
  const auto store = OpenStore();
  const absl::Duration took = absl::Now() - begin;
  const double processor = static_cast<double>(std::clock() - begin_cpu) / CLOCKS_PER_SEC;
  std::printf("%lld sessions: open after %s, of which %.3f s of processor time\n", static_cast<long long>(kSessions),
              absl::FormatDuration(took).c_str(), processor);
  // A sanitizer multiplies it: there only what is found counts.
  if (!kIsSanitized) {
    EXPECT_LT(processor, kMostProcessorSeconds);
  }

  const absl::Time first = absl::Now();
  std::mt19937 random(3);
  for (int use = 0; use < 1000; ++use) {
    const int64_t idx = random() % (kSessions / every) * every;
    const std::string name = absl::StrCat("session ", idx);
    const Tokens tokens = TokensOf(store.get(), idx % 10 == 0 ? "bob" : "ann", name);
    ASSERT_EQ(tokens.size(), 61u);
    ASSERT_EQ(tokens[0], idx);
  }
  std::printf("first use of a session: %s\n", absl::FormatDuration((absl::Now() - first) / 1000).c_str());
  EXPECT_LE(store->totals().open, 100);
  EXPECT_TRUE(files.Remove(folder).ok());
}

}  // namespace
}  // namespace statehouse::testing
