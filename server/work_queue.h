// A few threads for work that would hold up gRPC's own: tokenising a long prompt takes longer than a call may block.
//
// The queue is bounded in calls and in bytes of their requests, so that what waits here cannot grow without end.
// Thread-safety: all methods from any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"

namespace statehouse {

struct WorkQueueLimits {
  int64_t max_calls = 4096;       // that wait
  int64_t max_bytes = 256 << 20;  // of the requests that wait; one that is larger may wait alone
};

class WorkQueue {
 public:
  explicit WorkQueue(int num_threads, const WorkQueueLimits& limits = {});
  // Runs what is queued, then joins.
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  // Runs `work` for a request of `bytes`, then `done` with its status, both on one of the threads. Work that finds no
  // memory ends as RESOURCE_EXHAUSTED. RESOURCE_EXHAUSTED with a retry hint if the queue is full: neither is called.
  absl::Status Post(int64_t bytes, std::function<absl::Status()> work, std::function<void(const absl::Status&)> done);

 private:
  struct Item {
    int64_t bytes = 0;
    std::function<absl::Status()> work;
    std::function<void(const absl::Status&)> done;
  };
  void Run();

  const WorkQueueLimits limits_;
  std::mutex mu_;
  std::condition_variable wake_;
  std::deque<Item> queue_;  // guarded by mu_, as all below
  int64_t queued_bytes_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace statehouse
