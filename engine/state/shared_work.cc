#include "engine/state/shared_work.h"

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "kernels/parallel/core_count.h"

namespace statehouse {
namespace {

constexpr int64_t kMostThreads = 4;
// Fewer per thread are copied sooner than a thread is started.
constexpr int64_t kBytesPerThread = int64_t{2} << 20;

}  // namespace

int WorthwhileThreads(int64_t bytes, int64_t pieces) {
  static const int64_t cores = kernels::AvailableCores();
  return static_cast<int>(std::max<int64_t>(1, std::min({cores, kMostThreads, pieces, 1 + bytes / kBytesPerThread})));
}

void ShareWork(int num_threads, const std::function<void()>& work) {
  // On a busy machine a thread may come to run when all is done: nobody waits for it then, and it finds the door
  // closed.
  struct Door {
    std::mutex mutex;
    std::condition_variable left;
    bool is_closed = false;
    int inside = 0;
  };
  const auto door = std::make_shared<Door>();
  const auto enter = [door, &work] {
    {
      const std::lock_guard lock(door->mutex);
      if (door->is_closed) return;
      ++door->inside;
    }
    work();
    {
      const std::lock_guard lock(door->mutex);
      --door->inside;
    }
    door->left.notify_one();
  };
  try {
    for (int thread = 1; thread < num_threads; ++thread) std::thread(enter).detach();
  } catch (const std::system_error&) {
    // Those that there are do it.
  }
  work();
  std::unique_lock lock(door->mutex);
  door->is_closed = true;
  door->left.wait(lock, [&door] { return door->inside == 0; });
}

}  // namespace statehouse
