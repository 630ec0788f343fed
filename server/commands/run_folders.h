// Folders of one run of a command, gone when it ends: also by SIGINT, SIGTERM or SIGHUP, which end the process as ever
// once the folders are removed. Thread-safety: one thread; make it before any other thread starts, since threads
// inherit the blocked signals.
#pragma once

#include <signal.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

namespace statehouse {

class RunFolders {
 public:
  RunFolders();
  ~RunFolders();
  RunFolders(const RunFolders&) = delete;
  RunFolders& operator=(const RunFolders&) = delete;

  // A new folder in `parent` (empty: the temporary one). INVALID_ARGUMENT names `flag`: the parent is no folder, or
  // nothing can be made there.
  absl::StatusOr<std::string> Make(const char* flag, const std::string& parent);

 private:
  void WaitForSignal();
  void RemoveAll();

  sigset_t watched_;
  sigset_t before_;
  std::atomic<bool> stopping_{false};
  std::mutex mu_;
  std::vector<std::filesystem::path> folders_;  // guarded by mu_
  std::thread thread_;
};

}  // namespace statehouse
