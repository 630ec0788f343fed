// The step loop neither allocates nor frees: counted over 1000 mixed steps, on the fake model and on a real one.
#include "tests/support/allocation_counter.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>

#include "kernels/parallel/thread_pool.h"
#include "models/model.h"
#include "tests/engine/engine_fixture.h"

namespace statehouse::testing {
namespace {

class AllEven final : public LogitsMask {
 public:
  void Apply(std::span<const int32_t> output, std::span<float> logits) override {
    for (size_t id = 1; id < logits.size(); id += 2) logits[id] = -1e30f;
  }
};

// Requests that between them use everything: forks, logprobs, stop strings, filters, penalties, masks, priorities.
std::unique_ptr<Request> MakeMixed(std::mt19937* random, int32_t vocab_size, absl::Time now) {
  std::mt19937& draw = *random;
  auto request = MakeRequest(MakePrompt(1 + draw() % 150, draw(), vocab_size), 1 + draw() % 60);
  request->sampling.seed = draw();
  request->sampling.temperature = draw() % 5 == 0 ? 0 : 1;
  if (draw() % 3 == 0) request->sampling.top_p = 0.9;
  if (draw() % 4 == 0) request->sampling.top_k = 20;
  if (draw() % 4 == 0) request->sampling.typical_p = 0.8;
  if (draw() % 4 == 0) request->sampling.min_p = 0.01;
  if (draw() % 3 == 0) request->sampling.repetition_penalty = 1.3;
  if (draw() % 4 == 0) request->sampling.logit_bias = {{3, 2.0f}, {7, -50.0f}};
  if (draw() % 5 == 0) request->sampling.allowed_token_ids = {1, 2, 3, 4, 5, 6, 7, 8};
  if (draw() % 5 == 0) request->sampling.mask = std::make_shared<AllEven>();
  if (draw() % 3 == 0) request->num_logprobs = draw() % 21;
  if (draw() % 4 == 0) request->num_prompt_logprobs = draw() % 21;
  if (draw() % 2 == 0) request->stop.stop = {"qz", "aab", "zzz"};
  if (draw() % 3 == 0) request->stop.stop_token_ids = {9};
  if (draw() % 4 == 0) request->stop.min_tokens = request->stop.max_tokens / 2;
  if (draw() % 3 == 0) request->n = 1 + draw() % 5;
  if (draw() % 6 == 0) request->deadline = now + absl::Seconds(1 + draw() % 50);
  request->priority = static_cast<int32_t>(draw() % 3);
  return request;
}

// Runs mixed steps and returns the calls that they made.
struct Calls {
  int64_t steps = 0;
  int64_t allocations = 0;
  int64_t frees = 0;
};
Calls RunMixedSteps(Engine* engine, FakeClock* clock, int32_t vocab_size, int64_t num_steps) {
  std::mt19937 random(33);
  std::vector<std::shared_ptr<EventStream>> streams;
  Calls calls;
  while (calls.steps < num_steps) {
    if (streams.size() < 20 && random() % 3 == 0) {
      absl::StatusOr<std::shared_ptr<EventStream>> stream =
          engine->Submit(MakeMixed(&random, vocab_size, clock->Now()));
      EXPECT_TRUE(stream.ok()) << stream.status();
      streams.push_back(*stream);
    }
    if (random() % 40 == 0 && !streams.empty()) streams[random() % streams.size()]->Cancel();
    clock->Advance(absl::Milliseconds(100));
    {
      AllocationScope scope;
      calls.steps += engine->RunStep();
      calls.allocations += scope.allocations();
      calls.frees += scope.frees();
    }
    for (auto it = streams.begin(); it != streams.end();) {
      bool done = false;
      // Every fifth reader is slow, so that outputs pause.
      const bool slow = (it - streams.begin()) % 5 == 0;
      Event event;
      while ((!slow || random() % 4 == 0) && (*it)->TryNext(&event)) done = event.kind == Event::Kind::kDone;
      it = done ? streams.erase(it) : it + 1;
    }
  }
  return calls;
}

void ExpectMixed(const EngineStats& stats) {
  EXPECT_GT(stats.forks.load(), 10);
  EXPECT_GT(stats.switch_overs.load(), 5);
  EXPECT_GT(stats.folds.load(), 10);
  EXPECT_GT(stats.slow_reader_pauses.load(), 0);
  EXPECT_GT(stats.prefill_tokens.load(), 1000);
  EXPECT_GT(stats.decode_tokens.load(), 1000);
  for (const FinishReason reason :
       {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled, FinishReason::kDeadline}) {
    EXPECT_GT(stats.finished[static_cast<size_t>(reason)].load(), 0) << FinishReasonName(reason);
  }
}

TEST(Allocation, ThousandMixedSteps_TouchNoHeap) {
  if (!CountsAllocations()) GTEST_SKIP() << "the sanitizer replaces malloc itself";
  FakeClock clock;
  FakeModelOptions options;
  options.spread = 3;
  FakeModel model(options);
  const FakeVocabulary vocabulary = LetterVocabulary(64);
  EngineOptions engine_options{.max_num_seqs = 6, .max_num_batched_tokens = 48, .event_capacity = 8, .clock = &clock};
  auto engine = Engine::Create(&model, &vocabulary, engine_options).value();
  const Calls calls = RunMixedSteps(engine.get(), &clock, 64, 1000);
  EXPECT_EQ(calls.allocations, 0);
  EXPECT_EQ(calls.frees, 0);
  EXPECT_EQ(model.violation(), "");
  ExpectMixed(engine->stats());
}

TEST(Allocation, ThousandMixedStepsOfARealModel_TouchNoHeap) {
  if (!CountsAllocations()) GTEST_SKIP() << "the sanitizer replaces malloc itself";
  FakeClock clock;
  kernels::ThreadPool pool(2);
  LoadOptions load;
  load.chunk = 16;
  load.switch_over = 64;
  auto model = LoadModel(STATEHOUSE_SOURCE_DIR "/tests/golden/models/powercoder-tiny", load, &pool);
  ASSERT_TRUE(model.ok()) << model.status();
  const FakeVocabulary vocabulary = LetterVocabulary(300);
  EngineOptions engine_options{.max_num_seqs = 6, .max_num_batched_tokens = 48, .event_capacity = 8, .clock = &clock};
  auto engine = Engine::Create(model->get(), &vocabulary, engine_options).value();
  const Calls calls = RunMixedSteps(engine.get(), &clock, 300, 1000);
  EXPECT_EQ(calls.allocations, 0);
  EXPECT_EQ(calls.frees, 0);
  ExpectMixed(engine->stats());
}

TEST(Allocation, TheCounter_Counts) {
  if (!CountsAllocations()) GTEST_SKIP() << "the sanitizer replaces malloc itself";
  AllocationScope scope;
  auto* const volatile number = new int(1);
  delete number;
  EXPECT_EQ(scope.allocations(), 1);
  EXPECT_EQ(scope.frees(), 1);
}

}  // namespace
}  // namespace statehouse::testing
