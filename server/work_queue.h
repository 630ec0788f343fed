// A few threads for work that would hold up gRPC's own: tokenising a long prompt takes longer than a call may block.
//
// The queue is bounded in calls and in bytes of their requests, so that what waits here cannot grow without end; and
// one owner may be bounded in threads, so that what it waits for holds up nobody else. Thread-safety: all methods from
// any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"

namespace statehouse {

struct WorkQueueLimits {
  int64_t max_calls = 4096;       // that wait
  int64_t max_bytes = 256 << 20;  // of the requests that wait; one that is larger may wait alone
  int max_threads_per_owner = 0;  // that work for one owner at a time; 0: no limit
};

class WorkQueue {
 public:
  // `name` is that of its threads, at most 15 bytes.
  WorkQueue(const char* name, int num_threads, const WorkQueueLimits& limits = {});
  // Runs what is queued, then joins.
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  // Runs `work` for a request of `bytes`, then `done` with its status, both on one of the threads. Work that finds no
  // memory ends as RESOURCE_EXHAUSTED. RESOURCE_EXHAUSTED with a retry hint if the queue is full: neither is called.
  // `owner` is whose work it is; "" is nobody's in particular, and not bounded.
  absl::Status Post(int64_t bytes, std::function<absl::Status()> work, std::function<void(const absl::Status&)> done,
                    const std::string& owner = "");

 private:
  struct Item {
    std::string owner;
    int64_t bytes = 0;
    std::function<absl::Status()> work;
    std::function<void(const absl::Status&)> done;
  };
  void Run();
  bool MayRun(const Item& item) const;  // mu_ is held

  const WorkQueueLimits limits_;
  std::mutex mu_;
  std::condition_variable wake_;
  std::deque<Item> queue_;  // guarded by mu_, as all below
  int64_t queued_bytes_ = 0;
  std::map<std::string, int> working_;  // threads, by owner; nobody's are not counted
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace statehouse
