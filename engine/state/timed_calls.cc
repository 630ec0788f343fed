#include "engine/state/timed_calls.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace statehouse {

TimedCalls::TimedCalls(int num_threads) {
  for (int thread = 0; thread < num_threads; ++thread) threads_.emplace_back([this] { Serve(); });
}

TimedCalls::~TimedCalls() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status TimedCalls::Run(std::function<absl::Status()> call, absl::Duration timeout) {
  auto made = std::make_shared<Call>();
  made->function = std::move(call);
  std::unique_lock lock(mutex_);
  waiting_.push_back(made);
  work_.notify_one();
  const bool in_time = done_.wait_for(lock, absl::ToChronoMilliseconds(timeout), [&made] { return made->is_done; });
  if (in_time) return made->outcome;
  made->is_abandoned = true;
  return absl::UnavailableError(absl::StrCat("no answer within ", absl::FormatDuration(timeout)));
}

void TimedCalls::Serve() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    const std::shared_ptr<Call> call = std::move(waiting_.front());
    waiting_.pop_front();
    if (call->is_abandoned) continue;
    lock.unlock();
    absl::Status outcome = call->function();
    call->function = nullptr;
    lock.lock();
    call->outcome = std::move(outcome);
    call->is_done = true;
    done_.notify_all();
  }
}

}  // namespace statehouse
