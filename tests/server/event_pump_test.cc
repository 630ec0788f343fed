#include "server/event_pump.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/support/server_fixture.h"

namespace statehouse {
namespace {

class Counter final : public EventPump::Client {
 public:
  void OnReady() override {
    ++running;
    EXPECT_EQ(running.load(), 1) << "one at a time";
    if (on_ready) on_ready();
    --running;
    ++ready;
  }
  void OnTick() override { ++ticks; }
  std::function<void()> on_ready;
  std::atomic<int> running{0};
  std::atomic<int> ready{0};
  std::atomic<int> ticks{0};
};

TEST(EventPump, WokenWhileRunning_RunsAgain) {
  EventPump pump;
  auto client = std::make_shared<Counter>();
  std::atomic<bool> first{true};
  client->on_ready = [&] {
    if (first.exchange(false)) pump.Wake(client.get());
  };
  pump.Wake(client.get());
  EXPECT_TRUE(testing::Eventually([&] { return client->ready == 2; }));
}

TEST(EventPump, WokenByManyThreads_LosesNoWake) {
  EventPump pump;
  auto client = std::make_shared<Counter>();
  std::atomic<int> produced{0}, seen{0};
  client->on_ready = [&] { seen = produced.load(); };
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        ++produced;
        pump.Wake(client.get());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(testing::Eventually([&] { return seen == 8000; }));
}

TEST(EventPump, AClientThatIsLetGoWhileQueued_LivesUntilItHasRun) {
  EventPump pump;
  std::atomic<bool> hold{true};
  auto blocker = std::make_shared<Counter>();
  blocker->on_ready = [&] {
    while (hold) std::this_thread::yield();
  };
  pump.Wake(blocker.get());
  auto client = std::make_shared<Counter>();
  std::weak_ptr<Counter> weak = client;
  std::atomic<bool> ran{false};
  client->on_ready = [&] { ran = true; };
  pump.Wake(client.get());
  client.reset();
  EXPECT_FALSE(weak.expired());
  hold = false;
  EXPECT_TRUE(testing::Eventually([&] { return ran && weak.expired(); }));
}

TEST(EventPump, AddedClients_TickUntilRemoved) {
  EventPump pump;
  auto client = std::make_shared<Counter>();
  pump.Add(client);
  EXPECT_TRUE(testing::Eventually([&] { return client->ticks > 0; }));
  pump.Remove(client.get());
}

}  // namespace
}  // namespace statehouse
