#include "server/commands/run_folders.h"

#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

namespace fs = std::filesystem;

constexpr timespec kPoll = {.tv_sec = 0, .tv_nsec = 50'000'000};

}  // namespace

RunFolders::RunFolders() {
  sigemptyset(&watched_);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action = {};
    // What the caller had ignored, as nohup does, stays so.
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) continue;
    sigaddset(&watched_, signal);
  }
  pthread_sigmask(SIG_BLOCK, &watched_, &before_);
  thread_ = std::thread([this] { WaitForSignal(); });
}

RunFolders::~RunFolders() {
  stopping_ = true;
  thread_.join();
  RemoveAll();
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

absl::StatusOr<std::string> RunFolders::Make(const char* flag, const std::string& parent) {
  std::error_code error;
  const fs::path in = parent.empty() ? fs::temp_directory_path(error) : fs::path(parent);
  if (error || !fs::is_directory(in, error)) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": ", in.string(), " is not a folder"));
  }
  std::lock_guard<std::mutex> lock(mu_);
  const fs::path folder = in / absl::StrCat("statehouse-bench-", getpid(), "-", folders_.size());
  if (!fs::create_directory(folder, error)) {
    return absl::InvalidArgumentError(absl::StrCat(
        flag, ": ", folder.string(), " cannot be made: ", error ? error.message() : "it is there already"));
  }
  folders_.push_back(folder);
  return folder.string();
}

void RunFolders::WaitForSignal() {
  while (!stopping_) {
    const int signal = sigtimedwait(&watched_, nullptr, &kPoll);
    if (signal < 0) continue;
    RemoveAll();
    // What ends the process is the signal, as if it had not been watched.
    ::signal(signal, SIG_DFL);
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signal);
    kill(getpid(), signal);
    pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
  }
}

void RunFolders::RemoveAll() {
  constexpr int kMostTries = 50;  // whoever is ended by a signal may still be writing
  std::lock_guard<std::mutex> lock(mu_);
  for (const fs::path& folder : folders_) {
    std::error_code error;
    for (int tries = 0; fs::exists(folder, error) && tries < kMostTries; ++tries) {
      if (tries > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      fs::remove_all(folder, error);
    }
    if (fs::exists(folder, error)) std::fprintf(stderr, "statehouse: %s could not be removed\n", folder.c_str());
  }
}

}  // namespace statehouse
