// One gate word says which loop is open and how many workers are inside. A worker that wakes late finds the gate closed
// and goes back to sleep, so a loop never waits for a thread that has not started on it.
#include "kernels/parallel/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "kernels/parallel/core_count.h"
#include "kernels/parallel/thread_name.h"

namespace statehouse::kernels {
namespace {

// How long a thread watches before it sleeps: about 20 µs, longer than the gaps between the kernels of one step and
// short against a step. With more threads than cores watching would only steal time from those that work.
constexpr int kSpins = 1000;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns the first value seen that is not `old_value`.
uint32_t AwaitChange(const std::atomic<uint32_t>& word, uint32_t old_value, int spins) {
  for (int i = 0; i < spins; ++i) {
    const uint32_t value = word.load(std::memory_order_acquire);
    if (value != old_value) return value;
    Pause();
  }
  word.wait(old_value, std::memory_order_acquire);
  return word.load(std::memory_order_acquire);
}

}  // namespace

struct ThreadPool::Impl {
  // Gate: bit 0 says that a loop is open; the rest counts the workers inside it, in steps of two.
  static constexpr uint32_t kOpen = 1;
  static constexpr uint32_t kOneWorker = 2;

  alignas(64) std::atomic<uint32_t> epoch{0};  // changes when a loop opens or the pool ends
  alignas(64) std::atomic<uint32_t> gate{0};
  alignas(64) std::atomic<int64_t> next{0};  // next task to hand out
  // The open loop: written while no worker is inside.
  alignas(64) const void* fn = nullptr;
  Thunk thunk = nullptr;
  int64_t num_tasks = 0;
  // Constant after construction.
  int spins = 0;
  std::atomic<bool> ending{false};
  std::vector<std::thread> workers;

  void WorkOnTasks(int worker_idx) {
    for (;;) {
      const int64_t task_idx = next.fetch_add(1, std::memory_order_relaxed);
      if (task_idx >= num_tasks) return;
      thunk(fn, task_idx, worker_idx);
    }
  }

  // True if the caller is now counted inside an open loop.
  bool Enter() {
    uint32_t value = gate.load(std::memory_order_relaxed);
    while (value & kOpen) {
      if (gate.compare_exchange_weak(value, value + kOneWorker, std::memory_order_acquire, std::memory_order_relaxed)) {
        return true;
      }
    }
    return false;
  }

  void WorkerLoop(int worker_idx) {
    uint32_t seen = 0;
    for (;;) {
      seen = AwaitChange(epoch, seen, spins);
      if (ending.load(std::memory_order_relaxed)) return;
      if (!Enter()) continue;
      WorkOnTasks(worker_idx);
      const uint32_t left = gate.fetch_sub(kOneWorker, std::memory_order_release) - kOneWorker;
      if (left == 0) gate.notify_one();  // closed and empty: the caller may be asleep
    }
  }
};

ThreadPool::ThreadPool(int num_threads)
    : num_threads_(std::max(1, num_threads > 0 ? num_threads : AvailableCores())), impl_(std::make_unique<Impl>()) {
  impl_->spins = num_threads_ <= AvailableCores() ? kSpins : 0;
  impl_->workers.reserve(num_threads_ - 1);
  for (int worker_idx = 1; worker_idx < num_threads_; ++worker_idx) {
    impl_->workers.emplace_back([impl = impl_.get(), worker_idx] {
      NameThisThread("compute");
      impl->WorkerLoop(worker_idx);
    });
  }
}

ThreadPool::~ThreadPool() {
  impl_->ending.store(true, std::memory_order_relaxed);
  impl_->epoch.fetch_add(1, std::memory_order_release);
  impl_->epoch.notify_all();
  for (std::thread& worker : impl_->workers) worker.join();
}

void ThreadPool::RunErased(int64_t num_tasks, const void* fn, Thunk thunk) {
  if (num_threads_ == 1 || num_tasks <= 1) {
    for (int64_t task_idx = 0; task_idx < num_tasks; ++task_idx) thunk(fn, task_idx, 0);
    return;
  }
  impl_->fn = fn;
  impl_->thunk = thunk;
  impl_->num_tasks = num_tasks;
  impl_->next.store(0, std::memory_order_relaxed);
  impl_->gate.store(Impl::kOpen, std::memory_order_release);
  impl_->epoch.fetch_add(1, std::memory_order_release);
  impl_->epoch.notify_all();
  impl_->WorkOnTasks(/*worker_idx=*/0);

  uint32_t value = impl_->gate.fetch_and(~Impl::kOpen, std::memory_order_acquire) & ~Impl::kOpen;
  while (value != 0) value = AwaitChange(impl_->gate, value, impl_->spins);
}

}  // namespace statehouse::kernels
