#include "server/work_queue.h"

#include <algorithm>
#include <new>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "kernels/parallel/thread_name.h"

namespace statehouse {
namespace {

constexpr absl::Duration kRetryAfter = absl::Seconds(1);

// What a prompt needs while it is tokenised depends on its text: a request that takes too much must not end the others.
absl::Status RunOrRefuse(const std::function<absl::Status()>& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  return Overloaded("there is not enough memory for this request; send a smaller one", kRetryAfter);
}

}  // namespace

WorkQueue::WorkQueue(const char* name, int num_threads, const WorkQueueLimits& limits) : limits_(limits) {
  for (int i = 0; i < num_threads; ++i) {
    threads_.emplace_back([this, name] {
      kernels::NameThisThread(name);
      Run();
    });
  }
}

WorkQueue::~WorkQueue() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status WorkQueue::Post(int64_t bytes, std::function<absl::Status()> work,
                             std::function<void(const absl::Status&)> done, const std::string& owner) {
  {
    std::lock_guard<std::mutex> lock(mu_);
    const int64_t calls = static_cast<int64_t>(queue_.size());
    if (calls >= limits_.max_calls) {
      return Overloaded(absl::StrCat("the server is busy: ", calls, " calls wait to be read"), kRetryAfter);
    }
    if (calls > 0 && queued_bytes_ + bytes > limits_.max_bytes) {
      return Overloaded(absl::StrCat("the server is busy: ", queued_bytes_, " bytes of requests wait to be read"),
                        kRetryAfter);
    }
    queue_.push_back({owner, bytes, std::move(work), std::move(done)});
    queued_bytes_ += bytes;
  }
  wake_.notify_one();
  return absl::OkStatus();
}

bool WorkQueue::MayRun(const Item& item) const {
  if (limits_.max_threads_per_owner == 0 || item.owner.empty()) return true;
  const auto working = working_.find(item.owner);
  return working == working_.end() || working->second < limits_.max_threads_per_owner;
}

void WorkQueue::Run() {
  std::unique_lock<std::mutex> lock(mu_);
  while (true) {
    auto next = queue_.end();
    wake_.wait(lock, [&] {
      next = std::find_if(queue_.begin(), queue_.end(), [this](const Item& item) { return MayRun(item); });
      return next != queue_.end() || (stopping_ && queue_.empty());
    });
    if (next == queue_.end()) return;
    std::string owner;
    {
      const Item item = std::move(*next);
      queue_.erase(next);
      queued_bytes_ -= item.bytes;
      owner = item.owner;
      if (!owner.empty()) ++working_[owner];
      lock.unlock();
      item.done(RunOrRefuse(item.work));
    }
    lock.lock();
    if (const auto working = working_.find(owner); working != working_.end() && --working->second == 0) {
      working_.erase(working);
    }
    // This thread looks for what has become possible; when the last is gone, the others must hear of it.
    if (stopping_ && queue_.empty()) wake_.notify_all();
  }
}

}  // namespace statehouse
