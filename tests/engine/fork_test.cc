// n > 1: one prefill, then forks, in turns where slots are few.
#include <gtest/gtest.h>

#include "tests/engine/engine_fixture.h"
#include "tests/engine/reference_output.h"

namespace statehouse::testing {
namespace {

class ForkTest : public EngineTest {
 protected:
  void ExpectReference(const Request& request, const ReadStream& read) {
    for (int32_t output = 0; output < request.n; ++output) {
      const ReferenceOutput expected = Reference(*model_, *vocabulary_, request, output);
      EXPECT_EQ(read.outputs[output].tokens, expected.tokens) << "output " << output;
      EXPECT_EQ(read.outputs[output].end.reason, expected.reason);
      EXPECT_EQ(read.outputs[output].end.stop_token, expected.stop_token);
    }
  }
};

std::unique_ptr<Request> MakeForked(std::vector<int32_t> prompt, int64_t max_tokens, int32_t n) {
  std::unique_ptr<Request> request = MakeRequest(std::move(prompt), max_tokens);
  request->n = n;
  return request;
}

TEST_F(ForkTest, AnyNumberOfSlots_GivesTheSameOutputs) {
  for (const int64_t slots : {1, 2, 3, 4, 8}) {
    for (const int64_t prompt_size : {5, 31, 32, 33, 70}) {
      MakeEngine(slots, 16);
      std::unique_ptr<Request> request = MakeForked(MakePrompt(prompt_size), 12, 5);
      const Request copy = *request;
      const ReadStream read = RunAndRead(Submit(std::move(request)));
      ExpectReference(copy, read);
      EXPECT_EQ(model_->violation(), "") << slots << " slots, prompt of " << prompt_size;
      // One prefill; with a single slot, one per output.
      const int64_t prefills = slots == 1 ? 5 : 1;
      EXPECT_EQ(model_->num_rows(), prefills * prompt_size + 5 * 11) << slots << " slots";
      EXPECT_EQ(engine_->stats().forks.load(), slots == 1 ? 0 : 4);
      ExpectAllSlotsFree();
    }
  }
}

TEST_F(ForkTest, OutputsDiffer_AndEachIsThatOfItsSeed) {
  MakeEngine(4, 16);
  const ReadStream read = RunAndRead(Submit(MakeForked(MakePrompt(9), 10, 3)));
  EXPECT_NE(read.outputs[0].tokens, read.outputs[1].tokens);
  EXPECT_NE(read.outputs[1].tokens, read.outputs[2].tokens);
}

TEST_F(ForkTest, FirstOutput_IsThatOfTheRequestWithOneOutput) {
  MakeEngine(4, 16);
  const ReadStream many = RunAndRead(Submit(MakeForked(MakePrompt(9), 10, 3)));
  const ReadStream one = RunAndRead(Submit(MakeForked(MakePrompt(9), 10, 1)));
  EXPECT_EQ(many.outputs[0].tokens, one.outputs[0].tokens);
}

TEST_F(ForkTest, Penalties_AreForkedToo) {
  for (const int64_t slots : {1, 2, 4}) {
    MakeEngine(slots, 16);
    std::unique_ptr<Request> request = MakeForked(MakePrompt(40), 30, 4);
    request->sampling.repetition_penalty = 1.5;
    request->sampling.frequency_penalty = 0.7;
    request->sampling.presence_penalty = 0.3;
    const Request copy = *request;
    ExpectReference(copy, RunAndRead(Submit(std::move(request))));
  }
}

TEST_F(ForkTest, OutputsThatEndWithTheirFirstToken_NeedNoSlot) {
  FakeModelOptions model;
  model.eos_ids = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25};
  for (const int64_t slots : {1, 2, 3}) {
    MakeEngine(model, {.max_num_seqs = slots, .max_num_batched_tokens = 16});
    std::unique_ptr<Request> request = MakeForked(MakePrompt(9), 6, 16);
    request->sampling.temperature = 5;
    const Request copy = *request;
    const ReadStream read = RunAndRead(Submit(std::move(request)));
    ExpectReference(copy, read);
    ExpectAllSlotsFree();
  }
}

TEST_F(ForkTest, EveryOutputEndsWithItsFirstToken) {
  MakeEngine(2, 16);
  const auto stream = Submit(MakeForked(MakePrompt(9), 1, 20));
  const ReadStream read = RunAndRead(stream);
  EXPECT_EQ(model_->num_rows(), 9);
  EXPECT_EQ(stream->usage().completion_tokens, 20);
  ExpectAllSlotsFree();
}

// Sources that hold all slots and wait for one to fork into would wait forever.
TEST_F(ForkTest, ManyForkedRequestsOnFewSlots_AllEnd) {
  for (const int64_t slots : {1, 2, 3, 5}) {
    MakeEngine(slots, 16);
    std::vector<std::shared_ptr<EventStream>> streams;
    std::vector<Request> copies;
    for (int idx = 0; idx < 8; ++idx) {
      std::unique_ptr<Request> request = MakeForked(MakePrompt(7 * idx + 3, idx), 6, 1 + idx % 4);
      request->priority = idx % 3 - 1;
      copies.push_back(*request);
      streams.push_back(Submit(std::move(request)));
    }
    const std::vector<ReadStream> reads = RunAndRead(streams);
    for (size_t idx = 0; idx < copies.size(); ++idx) ExpectReference(copies[idx], reads[idx]);
    ExpectAllSlotsFree();
  }
}

TEST_F(ForkTest, BetterPriorityArrivesWhileForksWait_BothEnd) {
  MakeEngine(2, 16);
  const auto first = Submit(MakeForked(MakePrompt(9), 6, 4));
  for (int step = 0; step < 3; ++step) engine_->RunStep();
  std::unique_ptr<Request> request = MakeForked(MakePrompt(9), 6, 4);
  request->priority = -5;
  const auto second = Submit(std::move(request));
  const std::vector<ReadStream> reads = RunAndRead({first, second});
  EXPECT_TRUE(reads[0].done && reads[1].done);
}

TEST_F(ForkTest, CancelledBetweenTurns_FreesSourceForksAndReservations) {
  for (int steps = 1; steps < 30; steps += 2) {
    MakeEngine(3, 16);
    const auto stream = Submit(MakeForked(MakePrompt(20), 8, 7));
    for (int step = 0; step < steps; ++step) engine_->RunStep();
    stream->Cancel();
    ExpectAllSlotsFree();
    // Every slot can be had again.
    const ReadStream read = RunAndRead(Submit(MakeForked(MakePrompt(20), 8, 3)));
    EXPECT_TRUE(read.done);
    EXPECT_EQ(model_->violation(), "") << steps;
  }
}

TEST_F(ForkTest, MoreOutputsThanEventPlaces_StillComeThrough) {
  EngineOptions options{.max_num_seqs = 2, .max_num_batched_tokens = 16, .event_capacity = 1};
  MakeEngine(FakeModelOptions{}, options);
  std::unique_ptr<Request> request = MakeForked(MakePrompt(9), 3, 50);
  const Request copy = *request;
  ExpectReference(copy, RunAndRead(Submit(std::move(request))));
}

}  // namespace
}  // namespace statehouse::testing
