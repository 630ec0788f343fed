#include "engine/event_stream.h"

#include <gtest/gtest.h>

#include <thread>

namespace statehouse {
namespace {

Event TokenEvent(int32_t token) {
  Event event;
  event.token = token;
  return event;
}

TEST(EventStream, Full_KeepsPlacesForTheEndOfEachOutput) {
  EventStream stream("id", /*n=*/2, /*capacity=*/3);
  for (int token = 0; token < 3; ++token) stream.Push(TokenEvent(token));
  EXPECT_EQ(stream.room(), 0);
  EXPECT_FALSE(stream.HasRoomOrWake(1));
  Event end;
  end.kind = Event::Kind::kOutputFinished;
  stream.Push(end);
  stream.Push(end);
  stream.Finish(Ending{}, {}, {});
  std::vector<Event::Kind> kinds;
  for (Event event; stream.Next(&event);) kinds.push_back(event.kind);
  using Kind = Event::Kind;
  EXPECT_EQ(kinds, (std::vector<Kind>{Kind::kToken, Kind::kToken, Kind::kToken, Kind::kOutputFinished,
                                      Kind::kOutputFinished, Kind::kDone}));
}

TEST(EventStream, TakingAnEvent_WakesAnEngineThatWantsRoom) {
  auto waker = std::make_shared<Waker>();
  EventStream stream("id", 1, 1, waker);
  stream.Push(TokenEvent(1));
  ASSERT_FALSE(stream.HasRoomOrWake(1));
  std::thread consumer([&] {
    Event event;
    EXPECT_TRUE(stream.TryNext(&event));
  });
  waker->Wait(absl::Minutes(5));  // the test's own limit is shorter than this
  consumer.join();
  EXPECT_TRUE(stream.HasRoomOrWake(1));
}

TEST(EventStream, Cancel_WakesOnceAndCounts) {
  auto waker = std::make_shared<Waker>();
  EventStream stream("id", 1, 1, waker);
  stream.Cancel();
  stream.Cancel();
  EXPECT_TRUE(stream.cancelled());
  EXPECT_EQ(waker->cancels(), 1u);
  waker->Wait(absl::Minutes(5));
}

TEST(EventStream, NextWithATime_GivesUpThen) {
  EventStream stream("id", 1, 1);
  Event event;
  EXPECT_FALSE(stream.Next(&event, absl::Now() + absl::Milliseconds(2)));
  stream.Push(TokenEvent(4));
  EXPECT_TRUE(stream.Next(&event, absl::Now() + absl::Milliseconds(2)));
  EXPECT_EQ(event.token, 4);
}

TEST(EventStream, EarlyEnds_SayHowFarTheyCame) {
  const auto message_of = [](Ending ending) {
    EventStream stream("id", 1, 1);
    stream.Finish(ending, {}, {});
    return std::string(stream.status().message());
  };
  Ending ending;
  ending.why = Ending::Why::kDeadline;
  ending.prompt_tokens = 100;
  ending.prompt_tokens_done = 30;
  EXPECT_NE(message_of(ending).find("after 30 of 100 prompt tokens"), std::string::npos);
  ending.prompt_tokens_done = 100;
  ending.completion_tokens = 7;
  ending.position = 106;
  EXPECT_NE(message_of(ending).find("after 7 generated tokens, at position 106"), std::string::npos);
  ending.why = Ending::Why::kFinished;
  EXPECT_EQ(message_of(ending), "");
}

class CountingListener final : public EventStream::Listener {
 public:
  void OnEvents() override { ++calls; }
  int calls = 0;
};

TEST(EventStream, Listener_IsToldOncePerStepAndOnlyOfNews) {
  EventStream stream("id", 1, 8);
  CountingListener listener;
  stream.SetListener(&listener);
  stream.NotifyListener();
  EXPECT_EQ(listener.calls, 0);
  stream.Push(TokenEvent(1));
  stream.Push(TokenEvent(2));
  stream.NotifyListener();
  stream.NotifyListener();
  EXPECT_EQ(listener.calls, 1);
  stream.SetListener(nullptr);
  stream.Push(TokenEvent(3));
  stream.NotifyListener();
  EXPECT_EQ(listener.calls, 1);
}

TEST(EventStream, ReasonNames) {
  EXPECT_STREQ(FinishReasonName(FinishReason::kStop), "stop");
  EXPECT_STREQ(FinishReasonName(FinishReason::kLength), "length");
  EXPECT_STREQ(FinishReasonName(FinishReason::kCancelled), "cancelled");
  EXPECT_STREQ(FinishReasonName(FinishReason::kDeadline), "deadline");
  EXPECT_STREQ(FinishReasonName(FinishReason::kError), "error");
}

TEST(EventStream, ManyEventsThroughASmallRing_ArriveInOrder) {
  auto waker = std::make_shared<Waker>();
  EventStream stream("id", 1, 3, waker);
  constexpr int kEvents = 20000;
  std::thread producer([&] {
    for (int token = 0; token < kEvents;) {
      if (!stream.HasRoomOrWake(1)) {
        waker->Wait(absl::Minutes(5));
        continue;
      }
      stream.Push(TokenEvent(token++));
      stream.NotifyListener();
    }
    stream.Finish(Ending{}, {}, {});
    stream.NotifyListener();
  });
  int expected = 0;
  for (Event event; stream.Next(&event) && event.kind != Event::Kind::kDone; ++expected)
    ASSERT_EQ(event.token, expected);
  EXPECT_EQ(expected, kEvents);
  producer.join();
}

}  // namespace
}  // namespace statehouse
