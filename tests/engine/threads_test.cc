// The engine with its thread: callers, readers and cancellers at once, and an engine that sleeps when there is nothing
// to do. STATEHOUSE_SOAK_SECONDS makes the long test longer.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "tests/engine/engine_fixture.h"

namespace statehouse::testing {
namespace {

class ThreadsTest : public ::testing::Test {
 protected:
  void Start(EngineOptions options) {
    engine_ = Engine::Create(&model_, &vocabulary_, options).value();
    engine_->Start();
  }
  void ExpectIdleAndFree() {
    EXPECT_TRUE(engine_->WaitIdle(absl::Now() + absl::Seconds(60)));
    // Zeroing goes on for a moment after the last request.
    EngineStatus status = engine_->GetStatus();
    for (int wait = 0; wait < 5000 && status.slots_used + status.slots_zeroing > 0; ++wait) {
      absl::SleepFor(absl::Milliseconds(1));
      status = engine_->GetStatus();
    }
    EXPECT_EQ(status.slots_used, 0);
    EXPECT_EQ(status.slots_zeroing, 0);
    EXPECT_EQ(status.requests_running + status.requests_queued, 0);
    EXPECT_EQ(model_.violation(), "");
  }

  FakeModel model_;
  FakeVocabulary vocabulary_ = LetterVocabulary(64);
  std::unique_ptr<Engine> engine_;
};

std::unique_ptr<Request> RandomRequest(std::mt19937* random) {
  std::mt19937& draw = *random;
  auto request = MakeRequest(MakePrompt(1 + draw() % 100, draw()), 1 + draw() % 50);
  request->sampling.seed = draw();
  request->n = draw() % 4 == 0 ? 1 + draw() % 4 : 1;
  if (draw() % 3 == 0) request->stop.stop = {"ab", "qq"};
  if (draw() % 4 == 0) request->num_logprobs = 3;
  if (draw() % 5 == 0) request->deadline = absl::Now() + absl::Milliseconds(draw() % 20);
  request->priority = static_cast<int32_t>(draw() % 3);
  return request;
}

class FlagListener final : public EventStream::Listener {
 public:
  void OnEvents() override { news.store(true); }
  std::atomic<bool> news{false};
};

// One client: waits in Next(), polls, listens, reads slowly, cancels, or walks away.
void RunClient(Engine* engine, uint32_t seed, std::chrono::steady_clock::time_point until,
               std::atomic<int64_t>* ended) {
  std::mt19937 random(seed);
  do {
    absl::StatusOr<std::shared_ptr<EventStream>> submitted = engine->Submit(RandomRequest(&random));
    if (!submitted.ok()) {
      EXPECT_EQ(submitted.status().code(), absl::StatusCode::kResourceExhausted) << submitted.status();
      absl::SleepFor(absl::Milliseconds(1));
      continue;
    }
    const std::shared_ptr<EventStream> stream = *submitted;
    const uint32_t manner = random() % 6;
    const uint32_t cancel_after = random() % 4 == 0 ? random() % 20 : 1000;
    FlagListener listener;
    if (manner == 1) {
      stream->SetListener(&listener);
      listener.news.store(true);  // of what came before it listened
    }
    uint32_t events = 0;
    for (bool done = false; !done;) {
      Event event;
      if (manner == 1) {
        while (!listener.news.exchange(false)) std::this_thread::yield();
        while (stream->TryNext(&event)) done = event.kind == Event::Kind::kDone;
      } else if (stream->Next(&event, absl::Now() + absl::Seconds(60))) {
        done = event.kind == Event::Kind::kDone;
      } else {
        ADD_FAILURE() << "a stream stands still";
        return;
      }
      if (++events == cancel_after) {
        if (manner % 2 == 0) {
          stream->Cancel();
        } else {
          engine->Cancel(stream->request_id(), "");
        }
      }
      if (manner == 2 && events % 8 == 0) absl::SleepFor(absl::Microseconds(300));
      if (manner == 3 && events == 10) break;  // walks away
    }
    stream->SetListener(nullptr);
    if (manner == 3) stream->Cancel();
    ended->fetch_add(1);
  } while (std::chrono::steady_clock::now() < until);
}

TEST_F(ThreadsTest, ManyClientsAtOnce_AllEndAndNothingIsLeft) {
  EngineOptions options{.max_num_seqs = 5, .max_num_batched_tokens = 40, .event_capacity = 6};
  options.max_num_queued_reqs = 8;
  Start(options);
  const char* soak = std::getenv("STATEHOUSE_SOAK_SECONDS");
  const auto until =
      std::chrono::steady_clock::now() + std::chrono::seconds(soak != nullptr ? std::max(2, std::atoi(soak)) : 2);
  std::atomic<int64_t> ended{0};
  std::vector<std::thread> clients;
  for (uint32_t idx = 0; idx < 8; ++idx) {
    clients.emplace_back([&, idx] { RunClient(engine_.get(), idx + 1, until, &ended); });
  }
  std::thread observer([&] {
    while (std::chrono::steady_clock::now() < until) {
      const EngineStatus status = engine_->GetStatus();
      EXPECT_LE(status.slots_used, 5);
      absl::SleepFor(absl::Milliseconds(1));
    }
  });
  for (std::thread& client : clients) client.join();
  observer.join();
  EXPECT_GT(ended.load(), 50);
  ExpectIdleAndFree();
}

// An engine that misses one of these would sleep for an hour.
TEST_F(ThreadsTest, SleepingEngine_WakesForSubmitRoomCancelAndDeadline) {
  EngineOptions options{.max_num_seqs = 2, .max_num_batched_tokens = 40, .event_capacity = 2};
  Start(options);
  absl::SleepFor(absl::Milliseconds(20));
  const auto first = engine_->Submit(MakeRequest(MakePrompt(5), 30)).value();
  Event event;
  int tokens = 0;
  while (first->Next(&event) && event.kind != Event::Kind::kDone) {
    tokens += event.kind == Event::Kind::kToken;
    if (tokens % 7 == 0) absl::SleepFor(absl::Milliseconds(3));  // the engine finds no room and sleeps
  }
  EXPECT_EQ(tokens, 30);

  const auto second = engine_->Submit(MakeRequest(MakePrompt(5), 3000)).value();
  absl::SleepFor(absl::Milliseconds(20));
  second->Cancel();
  EXPECT_EQ(ReadAll(second.get()).outputs[0].end.reason, FinishReason::kCancelled);

  auto late = MakeRequest(MakePrompt(5), 3000);
  late->deadline = absl::Now() + absl::Milliseconds(50);
  const auto third = engine_->Submit(std::move(late)).value();
  absl::SleepFor(absl::Milliseconds(60));
  EXPECT_EQ(ReadAll(third.get()).outputs[0].end.reason, FinishReason::kDeadline);
  ExpectIdleAndFree();
}

TEST_F(ThreadsTest, IdleEngine_DoesNotSpin) {
  Start({.max_num_seqs = 2, .max_num_batched_tokens = 40, .event_capacity = 4});
  // Idle, and then with a paused reader.
  const auto paused = engine_->Submit(MakeRequest(MakePrompt(5), 3000)).value();
  absl::SleepFor(absl::Milliseconds(50));
  const std::clock_t before = std::clock();
  absl::SleepFor(absl::Milliseconds(300));
  const double busy = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(busy, 0.1) << "processor seconds in 0.3 s of waiting";
  paused->Cancel();
  ExpectIdleAndFree();
}

TEST_F(ThreadsTest, EngineDestroyedUnderLoad_EndsEveryStream) {
  for (int round = 0; round < 5; ++round) {
    Start({.max_num_seqs = 3, .max_num_batched_tokens = 40});
    std::vector<std::shared_ptr<EventStream>> streams;
    for (int idx = 0; idx < 12; ++idx)
      streams.push_back(engine_->Submit(MakeRequest(MakePrompt(30, idx), 100000)).value());
    std::thread reader([&] { ReadAll(streams[0].get()); });
    absl::SleepFor(absl::Milliseconds(5));
    engine_.reset();
    reader.join();
    for (size_t idx = 1; idx < streams.size(); ++idx) {
      EXPECT_TRUE(ReadAll(streams[idx].get()).done);
      EXPECT_EQ(streams[idx]->status().code(), absl::StatusCode::kCancelled);
    }
  }
}

TEST_F(ThreadsTest, Drain_WaitsForWhatRuns) {
  Start({.max_num_seqs = 2, .max_num_batched_tokens = 40});
  std::vector<std::shared_ptr<EventStream>> streams;
  for (int idx = 0; idx < 6; ++idx) streams.push_back(engine_->Submit(MakeRequest(MakePrompt(30, idx), 40)).value());
  engine_->StopAdmission();
  EXPECT_TRUE(engine_->WaitIdle(absl::Now() + absl::Seconds(60)));
  for (const auto& stream : streams) EXPECT_EQ(ReadAll(stream.get()).outputs[0].tokens.size(), 40u);
}

}  // namespace
}  // namespace statehouse::testing
