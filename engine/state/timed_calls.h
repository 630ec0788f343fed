// Calls that may hang (a network file system, a store that does not answer), run by threads of their own, so that a
// caller waits no longer than it wants to. Thread-safety: any thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace statehouse {

class TimedCalls {
 public:
  explicit TimedCalls(int num_threads);
  // Waits for calls under way, also those whose callers have left; drops those that wait.
  ~TimedCalls();

  // What `call` returns, or UNAVAILABLE if that takes longer than `timeout`. It may go on after that: it must own
  // everything that it touches.
  absl::Status Run(std::function<absl::Status()> call, absl::Duration timeout);

 private:
  struct Call {
    std::function<absl::Status()> function;
    absl::Status outcome;
    bool is_done = false;
    bool is_abandoned = false;
  };
  void Serve();

  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable done_;
  std::deque<std::shared_ptr<Call>> waiting_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;  // last: they use all of the above
};

}  // namespace statehouse
