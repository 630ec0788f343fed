#include "server/work_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <new>

#include "engine/errors.h"

namespace statehouse {
namespace {

// One thread, held by the first piece of work until Open().
class WorkQueueTest : public ::testing::Test {
 protected:
  void Hold() {
    std::promise<void> begun;
    ASSERT_TRUE(queue_
                    .Post(
                        1,
                        [&] {
                          begun.set_value();
                          gate_.get_future().wait();
                          return absl::OkStatus();
                        },
                        [](const absl::Status&) {})
                    .ok());
    begun.get_future().wait();
  }
  void Open() { gate_.set_value(); }
  absl::Status Post(int64_t bytes) {
    return queue_.Post(
        bytes, [] { return absl::OkStatus(); }, [this](const absl::Status&) { ++done_; });
  }

  std::atomic<int> done_{0};
  std::promise<void> gate_;
  WorkQueue queue_{"test", 1, {.max_calls = 2, .max_bytes = 100}};
};

TEST_F(WorkQueueTest, MoreCallsThanMayWait_AreRefusedWithARetryHint) {
  Hold();
  EXPECT_TRUE(Post(1).ok());
  EXPECT_TRUE(Post(1).ok());
  const absl::Status status = Post(1);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_TRUE(RetryAfterOf(status).has_value());
  Open();
}

TEST_F(WorkQueueTest, MoreBytesThanMayWait_AreRefusedButALargeOneMayWaitAlone) {
  Hold();
  EXPECT_TRUE(Post(1000).ok()) << "alone";
  EXPECT_EQ(Post(1).code(), absl::StatusCode::kResourceExhausted);
  Open();
  while (done_ < 1) std::this_thread::yield();
  EXPECT_TRUE(Post(60).ok()) << "what has been worked on counts no longer";
}

TEST_F(WorkQueueTest, WorkThatFindsNoMemory_EndsAloneAndSaysSo) {
  std::promise<absl::Status> ended;
  ASSERT_TRUE(queue_
                  .Post(
                      1, []() -> absl::Status { throw std::bad_alloc(); },
                      [&](const absl::Status& status) { ended.set_value(status); })
                  .ok());
  EXPECT_EQ(ended.get_future().get().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Post(1).ok());
  while (done_ < 1) std::this_thread::yield();
}

TEST(WorkQueueOwners, OneOwnersWorkThatHangs_LeavesThreadsToOthers) {
  std::promise<void> gate;
  const std::shared_future<void> opened = gate.get_future().share();
  std::atomic<int> hanging{0}, most{0}, done{0};
  {
    WorkQueue queue("test", 4, {.max_threads_per_owner = 2});
    const auto ended = [&](const absl::Status&) { ++done; };
    const auto hang = [&] {
      const int now = ++hanging;
      for (int before = most; before < now && !most.compare_exchange_weak(before, now);) {
      }
      opened.wait();
      --hanging;
      return absl::OkStatus();
    };
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(queue.Post(1, hang, ended, "ann").ok());
    std::promise<void> bobs, nobodys;
    const auto fulfil = [](std::promise<void>* promise) {
      promise->set_value();
      return absl::OkStatus();
    };
    ASSERT_TRUE(queue
                    .Post(
                        1, [&] { return fulfil(&bobs); }, ended, "bob")
                    .ok());
    ASSERT_TRUE(queue
                    .Post(
                        1, [&] { return fulfil(&nobodys); }, ended)
                    .ok());
    bobs.get_future().wait();
    nobodys.get_future().wait();
    for (int i = 0; i < 2000 && most < 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(most, 2);
    gate.set_value();
  }
  EXPECT_EQ(done, 8) << "what waited for its owner's threads runs, too";
  EXPECT_EQ(most, 2);
}

}  // namespace
}  // namespace statehouse
