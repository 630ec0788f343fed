// A fixed set of threads that run one loop at a time: the kernels' only form of parallelism.
//
// Threads split outputs, never sums, so results do not depend on their number. Run() neither allocates nor throws.
// Thread-safety: one thread at a time may call Run (the engine thread); tasks must not call Run themselves.
//
//   pool.Run(num_panels, [&](int64_t panel_idx, int worker_idx) { ... });
#pragma once

#include <cstdint>
#include <memory>

namespace statehouse::kernels {

class ThreadPool {
 public:
  // num_threads counts the caller, so 1 starts none. 0 takes one thread per available core.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls fn(task_idx, worker_idx) once for each task_idx in [0, num_tasks); blocks until all have returned.
  // worker_idx is in [0, num_threads()): index per-worker scratch with it. Tasks are handed out in order, on demand.
  template <typename Fn>
  void Run(int64_t num_tasks, const Fn& fn) {
    RunErased(num_tasks, &fn, [](const void* erased, int64_t task_idx, int worker_idx) {
      (*static_cast<const Fn*>(erased))(task_idx, worker_idx);
    });
  }

 private:
  using Thunk = void (*)(const void* fn, int64_t task_idx, int worker_idx);
  void RunErased(int64_t num_tasks, const void* fn, Thunk thunk);

  struct Impl;
  const int num_threads_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace statehouse::kernels
