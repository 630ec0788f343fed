// Wakes the engine thread when it sleeps for want of work: a new request, a cancellation, a consumer that made room.
//
// Streams hold it by shared pointer, since a consumer may keep its stream longer than the engine lives.
// Thread-safety: Wake() and WakeForCancel() from any thread; the others from the engine thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "absl/time/time.h"

namespace statehouse {

class Waker {
 public:
  void Wake();
  // Also says that some stream was cancelled, so that the engine looks through its queue.
  void WakeForCancel();

  // Number of WakeForCancel() calls so far.
  uint64_t cancels() const { return cancels_.load(std::memory_order_acquire); }
  // Sleeps until a Wake() since the last return, or until `timeout` has passed.
  void Wait(absl::Duration timeout);

 private:
  std::atomic<uint64_t> cancels_{0};
  // std, not absl: see event_stream.h.
  std::mutex mu_;
  std::condition_variable woken_;
  bool signaled_ = false;  // guarded by mu_
};

}  // namespace statehouse
