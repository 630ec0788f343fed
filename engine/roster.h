// All requests that the engine has: by principal and id, and those that wait, in the order in which they will run.
//
// It is the one thing that callers and the engine thread share beside the streams. Admission is arithmetic here: a
// queue bounded in requests and in prompt tokens, and a bound per principal. Finished requests are buried, and freed by
// whoever reaps. Thread-safety: every method may be called from any thread unless it says otherwise. What is marked
// "engine" neither allocates nor frees.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/generation.h"
#include "engine/stats.h"

namespace statehouse {

struct RosterLimits {
  int64_t max_queued_requests = 0;
  int64_t max_queued_tokens = 0;
  // 0: no limit. A request counts once per output, up to num_slots: that many may run at once.
  int64_t max_requests_per_principal = 0;
  int64_t num_slots = 1;
};

class Roster {
 public:
  Roster(const RosterLimits& limits, EngineStats* stats) : limits_(limits), stats_(stats) {}
  ~Roster();

  // Queues it. ALREADY_EXISTS, RESOURCE_EXHAUSTED with a retry hint, UNAVAILABLE.
  absl::Status Add(std::unique_ptr<Generation> generation);
  bool Cancel(std::string_view id, std::string_view principal);
  void CancelAll();
  void StopAdmission();
  // From now on Add() answers UNAVAILABLE with this reason.
  void SetUnhealthy(std::string_view reason);
  bool WaitIdle(absl::Time until);

  // Engine: the next request to run; null if none waits.
  Generation* Front() const;
  // Engine: takes it out of the queue. It stays registered.
  void Pop(Generation* front, absl::Time now);
  // Engine: takes one cancelled or expired request out of the queue, or any if `everything`; null if there is none.
  Generation* PopEnded(absl::Time now, bool everything);
  // The earliest deadline among waiting requests, or earlier.
  absl::Time earliest_deadline() const;
  // Engine: forgets id and principal, so that both can be used again by one who reads the end of the stream.
  void Unregister(Generation* generation);
  // Engine: hands over an unregistered request, to be freed by Reap().
  void Bury(Generation* generation);
  // Frees what was buried.
  void Reap();
  // Waits until there is something to reap or StopReaping() was called; false once it was.
  bool WaitToReap();
  void StopReaping();

  struct Totals {
    int64_t queued_requests = 0;
    int64_t queued_tokens = 0;
    int64_t running_requests = 0;
    bool accepting = true;
    bool healthy = true;
  };
  Totals totals() const;

 private:
  absl::Status CheckRoom(const Generation& generation) const;  // REQUIRES: mu_ held, as for all below
  int64_t ShareOf(const Generation& generation) const;         // of its principal's limit
  absl::Duration RetryAfter() const;
  void Insert(Generation* generation);
  void Remove(Generation* generation);

  const RosterLimits limits_;
  EngineStats* const stats_;
  // std, not absl: see event_stream.h. Guards everything below.
  mutable std::mutex mu_;
  std::condition_variable idle_;
  std::condition_variable buried_;
  Generation::Table by_id_;
  Generation::Principals per_principal_;
  Generation* head_ = nullptr;  // the queue: doubly linked, in order of Generation::order()
  Generation* tail_ = nullptr;
  int64_t queued_requests_ = 0;
  int64_t queued_tokens_ = 0;
  int64_t arrivals_ = 0;
  absl::Time earliest_deadline_ = absl::InfiniteFuture();
  Generation* graveyard_ = nullptr;
  bool stop_reaping_ = false;
  bool accepting_ = true;
  std::string unhealthy_;  // why; empty: healthy
  // Seconds between requests that leave a queue which is not empty: a moving average behind the retry hint.
  double seconds_per_request_ = 0;
  absl::Time last_pop_ = absl::InfinitePast();
};

}  // namespace statehouse
