// SIGTERM, SIGINT and SIGHUP, taken by a thread that waits for them: nothing runs in a signal handler.
// Thread-safety: one thread owns it; make it before any other thread starts, since threads inherit the blocked signals.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <functional>
#include <memory>
#include <thread>

#include "absl/time/time.h"

namespace statehouse {

class Signals {
 public:
  // `on_hangup` runs on the signal thread. A second SIGTERM or SIGINT ends the process at once, with status 128 +
  // signal.
  explicit Signals(std::function<void()> on_hangup);
  // Joins, and gives the signals back their earlier meaning.
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // While on, the first SIGTERM or SIGINT ends the process at once with status 0: there is nothing to finish.
  void ExitOnStop(bool on);
  // Blocks until the first SIGTERM or SIGINT; returns its number, or 0 after RequestStop().
  int WaitForStop();
  // Ends WaitForStop() as a signal would. Any thread.
  void RequestStop();
  // Whether it has come already.
  bool stopping() const;

 private:
  void Run();

  struct Shared;
  const std::function<void()> on_hangup_;
  sigset_t watched_;
  sigset_t before_;
  std::unique_ptr<Shared> shared_;
  std::thread thread_;
};

}  // namespace statehouse
