#include "kernels/parallel/thread_pool.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/parallel/core_count.h"

namespace {
std::atomic<int64_t> allocations{0};
}  // namespace

// Not inlined: the compiler would take the pairs malloc/delete and new/free for mistakes.
[[gnu::noinline]] void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace statehouse::kernels {
namespace {

TEST(ThreadPool, EveryTaskRunsOnce_WhateverTheNumbers) {
  for (int threads = 1; threads <= 6; ++threads) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (const int64_t tasks : {0, 1, 2, 3, 7, 64, 1000}) {
      std::vector<std::atomic<int>> runs(tasks);
      std::atomic<bool> good_worker{true};
      pool.Run(tasks, [&](int64_t task, int worker) {
        runs[task].fetch_add(1);
        if (worker < 0 || worker >= threads) good_worker = false;
      });
      for (int64_t task = 0; task < tasks; ++task) EXPECT_EQ(runs[task], 1) << tasks << " tasks, task " << task;
      EXPECT_TRUE(good_worker);
    }
  }
}

TEST(ThreadPool, PlainWritesOfTasks_AreSeenAfterRun) {
  ThreadPool pool(4);
  std::vector<int> values(256);
  for (int round = 1; round <= 2000; ++round) {
    pool.Run(256, [&](int64_t task, int) { values[task] += round; });
    ASSERT_EQ(values[round % 256], round * (round + 1) / 2);
  }
}

TEST(ThreadPool, OneWorkerIndex_NeverRunsTwoTasksAtOnce) {
  ThreadPool pool(4);
  std::vector<int> busy(4);  // not atomic: a race here is an error of the pool
  for (int round = 0; round < 200; ++round) {
    pool.Run(64, [&](int64_t, int worker) {
      ++busy[worker];
      --busy[worker];
    });
  }
  for (const int count : busy) EXPECT_EQ(count, 0);
}

TEST(ThreadPool, IdleLongEnoughToSleep_WakesUp) {
  ThreadPool pool(3);
  std::atomic<int> runs{0};
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    pool.Run(16, [&](int64_t, int) { runs.fetch_add(1); });
  }
  EXPECT_EQ(runs, 80);
}

TEST(ThreadPool, LongTask_IsAwaited) {
  ThreadPool pool(2);
  for (int round = 0; round < 10; ++round) {
    std::atomic<int> done{0};
    pool.Run(2, [&](int64_t, int) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      done.fetch_add(1);
    });
    EXPECT_EQ(done, 2);
  }
}

TEST(ThreadPool, Run_DoesNotAllocate) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  const auto run = [&] { pool.Run(32, [&](int64_t task, int) { sum.fetch_add(task); }); };
  run();
  const int64_t before = allocations.load();
  for (int round = 0; round < 1000; ++round) run();
  EXPECT_EQ(allocations.load(), before);
  EXPECT_EQ(sum, 1001 * 31 * 16);
}

TEST(ThreadPool, ManyPools_StartAndStop) {
  for (int round = 0; round < 50; ++round) {
    ThreadPool idle(3);
    ThreadPool pool(1 + round % 4);
    std::atomic<int> runs{0};
    pool.Run(5, [&](int64_t, int) { runs.fetch_add(1); });
    EXPECT_EQ(runs, 5);
  }
}

TEST(AvailableCores, IsAtLeastOneAndNoMoreThanTheMachineHas) {
  EXPECT_GE(AvailableCores(), 1);
  EXPECT_LE(AvailableCores(), static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_EQ(ThreadPool(0).num_threads(), AvailableCores());
}

}  // namespace
}  // namespace statehouse::kernels
