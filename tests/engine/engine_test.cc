// The engine as its callers see it, on a fake model and a fake clock.
#include "engine/engine.h"

#include <gmock/gmock.h>

#include "engine/errors.h"
#include "tests/engine/engine_fixture.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

// What a greedy output of this prompt must be, straight from the model's definition.
std::vector<int32_t> GreedyByHand(const FakeModel& model, std::vector<int32_t> tokens, int64_t count) {
  const size_t prompt_size = tokens.size();
  for (int64_t step = 0; step < count; ++step) {
    const std::vector<float> logits = model.LogitsAfter(tokens);
    tokens.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  return {tokens.begin() + static_cast<int64_t>(prompt_size), tokens.end()};
}

std::unique_ptr<Request> MakeGreedy(std::vector<int32_t> prompt, int64_t max_tokens) {
  std::unique_ptr<Request> request = MakeRequest(std::move(prompt), max_tokens);
  request->sampling.temperature = 0;
  return request;
}

TEST_F(EngineTest, GreedyRequest_FollowsTheModelToken) {
  MakeEngine(/*slots=*/2, /*rows=*/8);
  // 20 + 40 tokens cross chunks of 8 and the switch-over at 32 while decoding.
  const std::vector<int32_t> prompt = MakePrompt(20);
  const ReadStream read = RunAndRead(Submit(MakeGreedy(prompt, 40)));
  EXPECT_EQ(read.outputs[0].tokens, GreedyByHand(*model_, prompt, 40));
  EXPECT_EQ(read.outputs[0].end.reason, FinishReason::kLength);
  EXPECT_EQ(read.outputs[0].events[0].position, 20);
  EXPECT_EQ(model_->num_switch_overs(), 1);
  EXPECT_EQ(engine_->stats().switch_overs.load(), 1);
  // After 59 tokens with C = 8 the state covers [0, 48): six chunks, three of them by the switch-over at 32.
  EXPECT_EQ(engine_->stats().folds.load(), 3);
  ExpectAllSlotsFree();
}

TEST_F(EngineTest, PromptLongerThanTheSwitchOver_IsReadInPieces) {
  for (const int64_t size : {1, 7, 8, 9, 31, 32, 33, 64, 200}) {
    MakeEngine(/*slots=*/1, /*rows=*/13);
    const std::vector<int32_t> prompt = MakePrompt(size);
    const ReadStream read = RunAndRead(Submit(MakeGreedy(prompt, 5)));
    EXPECT_EQ(read.outputs[0].tokens, GreedyByHand(*model_, prompt, 5)) << size;
    EXPECT_EQ(model_->violation(), "") << size;
  }
}

TEST_F(EngineTest, ModelWithStateFromTheStart_NeverSwitchesOver) {
  FakeModelOptions model;
  model.switch_over = 0;
  MakeEngine(model, {.max_num_seqs = 2, .max_num_batched_tokens = 16});
  const std::vector<int32_t> prompt = MakePrompt(50);
  EXPECT_EQ(RunAndRead(Submit(MakeGreedy(prompt, 20))).outputs[0].tokens, GreedyByHand(*model_, prompt, 20));
  EXPECT_EQ(model_->num_switch_overs(), 0);
}

TEST_F(EngineTest, MoreRequestsThanSlots_AllEndWithTheirOwnTokens) {
  MakeEngine(/*slots=*/3, /*rows=*/16);
  std::vector<std::shared_ptr<EventStream>> streams;
  for (int32_t idx = 0; idx < 20; ++idx)
    streams.push_back(Submit(MakeGreedy(MakePrompt(3 * idx + 1, idx), idx % 7 + 1)));
  const std::vector<ReadStream> reads = RunAndRead(streams);
  for (int32_t idx = 0; idx < 20; ++idx) {
    EXPECT_EQ(reads[idx].outputs[0].tokens, GreedyByHand(*model_, MakePrompt(3 * idx + 1, idx), idx % 7 + 1)) << idx;
    EXPECT_TRUE(streams[idx]->status().ok());
    EXPECT_EQ(streams[idx]->usage().prompt_tokens, 3 * idx + 1);
    EXPECT_EQ(streams[idx]->usage().completion_tokens, idx % 7 + 1);
  }
  ExpectAllSlotsFree();
}

TEST_F(EngineTest, OneToken_EndsWithThePrompt) {
  MakeEngine(1, 8);
  const ReadStream read = RunAndRead(Submit(MakeGreedy({5}, 1)));
  EXPECT_EQ(read.outputs[0].tokens, GreedyByHand(*model_, {5}, 1));
  EXPECT_EQ(model_->num_rows(), 1);
  ExpectAllSlotsFree();
}

TEST_F(EngineTest, CancelledWhileQueued_FreesNoSlot) {
  MakeEngine(1, 8);
  const auto running = Submit(MakeGreedy(MakePrompt(4), 50));
  std::unique_ptr<Request> request = MakeGreedy(MakePrompt(4), 50);
  request->id = "waiting";
  const auto waiting = Submit(std::move(request));
  for (int step = 0; step < 5; ++step) engine_->RunStep();
  EXPECT_FALSE(engine_->Cancel("waiting", "somebody else"));
  EXPECT_TRUE(engine_->Cancel("waiting", ""));
  engine_->RunStep();
  ReadStream read;
  Drain(waiting.get(), &read);
  EXPECT_TRUE(read.done);
  EXPECT_FALSE(read.started);
  EXPECT_EQ(read.outputs[0].end.reason, FinishReason::kCancelled);
  EXPECT_EQ(waiting->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(engine_->GetStatus().slots_used, 1);
  EXPECT_FALSE(engine_->Cancel("waiting", ""));
  EXPECT_EQ(RunAndRead(running).outputs[0].tokens.size(), 50u);
}

TEST_F(EngineTest, CancelledWhileRunning_FreesItsSlotWithinOneStep) {
  MakeEngine(1, 8);
  const auto stream = Submit(MakeGreedy(MakePrompt(20), 50));
  for (int step = 0; step < 8; ++step) engine_->RunStep();
  EXPECT_EQ(engine_->GetStatus().slots_used, 1);
  stream->Cancel();
  engine_->RunStep();
  EXPECT_EQ(engine_->GetStatus().slots_used, 0);
  ReadStream read;
  Drain(stream.get(), &read);
  EXPECT_TRUE(read.done);
  EXPECT_THAT(std::string(stream->status().message()), HasSubstr("at position"));
  ExpectAllSlotsFree();
}

TEST_F(EngineTest, CancelledDuringTheSwitchOver_LeavesACleanSlot) {
  FakeModelOptions model;
  model.num_layers = 16;  // 32 units, two or so per step of 8 rows
  MakeEngine(model, {.max_num_seqs = 1, .max_num_batched_tokens = 2});
  const auto stream = Submit(MakeGreedy(MakePrompt(40), 5));
  while (engine_->GetStatus().slots_used == 0 || model_->num_rows() < 32) ASSERT_TRUE(engine_->RunStep());
  engine_->RunStep();
  ASSERT_EQ(model_->num_switch_overs(), 0) << "the switch-over must take several steps here";
  stream->Cancel();
  const std::vector<int32_t> prompt = MakePrompt(40, 2);
  EXPECT_EQ(RunAndRead(Submit(MakeGreedy(prompt, 5))).outputs[0].tokens, GreedyByHand(*model_, prompt, 5));
}

TEST_F(EngineTest, DeadlinePasses_QueuedAndRunningEndWithTheirPosition) {
  MakeEngine(1, 8);
  std::unique_ptr<Request> first = MakeGreedy(MakePrompt(4), 1000);
  first->deadline = clock_.Now() + absl::Seconds(5);
  const auto running = Submit(std::move(first));
  std::unique_ptr<Request> second = MakeGreedy(MakePrompt(4), 1000);
  second->deadline = clock_.Now() + absl::Seconds(4);
  const auto waiting = Submit(std::move(second));
  for (int step = 0; step < 10; ++step) engine_->RunStep();
  clock_.Advance(absl::Seconds(4));
  engine_->RunStep();
  ReadStream read;
  Drain(waiting.get(), &read);
  EXPECT_TRUE(read.done);
  EXPECT_EQ(waiting->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(engine_->GetStatus().slots_used, 1);
  clock_.Advance(absl::Seconds(1));
  const ReadStream ran = RunAndRead(running);
  EXPECT_EQ(ran.outputs[0].end.reason, FinishReason::kDeadline);
  EXPECT_EQ(running->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(running->status().message()), HasSubstr("generated tokens, at position"));
  ExpectAllSlotsFree();
}

TEST_F(EngineTest, SlowReader_PausesKeepsItsSlotAndEndsAfterTheTimeout) {
  EngineOptions options{.max_num_seqs = 2, .max_num_batched_tokens = 8, .event_capacity = 4};
  options.slow_reader_timeout = absl::Seconds(30);
  MakeEngine(FakeModelOptions{}, options);
  const auto slow = Submit(MakeGreedy(MakePrompt(4), 100));
  const auto quick = Submit(MakeGreedy(MakePrompt(6), 40));
  EXPECT_EQ(RunAndRead(quick).outputs[0].tokens.size(), 40u);  // not stalled by the other
  EXPECT_EQ(engine_->stats().slow_reader_pauses.load(), 1);
  EXPECT_EQ(engine_->GetStatus().slots_used, 1);
  RunAll();
  // Reading one event lets one more come, and starts the time anew.
  clock_.Advance(absl::Seconds(20));
  Event event;
  ASSERT_TRUE(slow->TryNext(&event));
  RunAll();
  clock_.Advance(absl::Seconds(20));
  RunAll();
  EXPECT_EQ(engine_->GetStatus().slots_used, 1);
  clock_.Advance(absl::Seconds(11));
  engine_->RunStep();
  ReadStream read;
  read.started = true;  // its event was taken above
  Drain(slow.get(), &read);
  EXPECT_TRUE(read.done);
  EXPECT_EQ(read.outputs[0].tokens.size(), 4u);
  EXPECT_EQ(read.outputs[0].end.reason, FinishReason::kDeadline);
  EXPECT_EQ(slow->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(slow->status().message()), HasSubstr("not read for 30s"));
  ExpectAllSlotsFree();
}

TEST_F(EngineTest, PausedReader_ThatReadsAgain_GetsTheSameTokens) {
  EngineOptions options{.max_num_seqs = 2, .max_num_batched_tokens = 8, .event_capacity = 3};
  MakeEngine(FakeModelOptions{}, options);
  const auto stream = Submit(MakeGreedy(MakePrompt(4), 60));
  ReadStream read;
  while (!read.done) {
    RunAll();
    Drain(stream.get(), &read);
  }
  EXPECT_EQ(read.outputs[0].tokens, GreedyByHand(*model_, MakePrompt(4), 60));
}

TEST_F(EngineTest, Priorities_LowerNumberRunsFirst) {
  MakeEngine(1, 8);
  std::vector<std::shared_ptr<EventStream>> streams;
  for (const int32_t priority : {5, 0, -3, 0}) {
    std::unique_ptr<Request> request = MakeGreedy(MakePrompt(3), 2);
    request->priority = priority;
    streams.push_back(Submit(std::move(request)));
  }
  std::vector<int> ended;
  std::vector<ReadStream> reads(4);
  while (engine_->RunStep()) {
    for (int idx = 0; idx < 4; ++idx) {
      if (reads[idx].done) continue;
      Drain(streams[idx].get(), &reads[idx]);
      if (reads[idx].done) ended.push_back(idx);
    }
  }
  EXPECT_EQ(ended, (std::vector<int>{2, 1, 3, 0}));
}

TEST_F(EngineTest, FullQueue_RefusesWithARetryHint) {
  EngineOptions options{.max_num_seqs = 1, .max_num_batched_tokens = 8};
  options.max_num_queued_reqs = 2;
  options.max_num_queued_tokens = 100;
  MakeEngine(FakeModelOptions{}, options);
  Submit(MakeGreedy(MakePrompt(60), 5));
  absl::StatusOr<std::shared_ptr<EventStream>> refused = engine_->Submit(MakeGreedy(MakePrompt(41), 5));
  ASSERT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("--max-num-queued-tokens"));
  EXPECT_TRUE(RetryAfterOf(refused.status()).has_value());
  Submit(MakeGreedy(MakePrompt(4), 5));
  refused = engine_->Submit(MakeGreedy(MakePrompt(4), 5));
  ASSERT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("2 of 2 requests wait"));
  EXPECT_EQ(engine_->stats().rejected_queue_full.load(), 2);
  RunAll();
  EXPECT_TRUE(engine_->Submit(MakeGreedy(MakePrompt(4), 5)).ok());
}

TEST_F(EngineTest, PrincipalAtItsLimit_IsRefusedAndOthersAreNot) {
  EngineOptions options{.max_num_seqs = 4, .max_num_batched_tokens = 8};
  options.max_requests_per_principal = 2;
  MakeEngine(FakeModelOptions{}, options);
  const auto submit_as = [this](const char* principal) {
    std::unique_ptr<Request> request = MakeGreedy(MakePrompt(4), 3);
    request->principal = principal;
    return engine_->Submit(std::move(request)).status();
  };
  EXPECT_TRUE(submit_as("ann").ok());
  EXPECT_TRUE(submit_as("ann").ok());
  const absl::Status refused = submit_as("ann");
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(RetryAfterOf(refused).has_value());
  EXPECT_TRUE(submit_as("bob").ok());
  RunAll();
  EXPECT_TRUE(submit_as("ann").ok());
  EXPECT_EQ(engine_->stats().rejected_principal_limit.load(), 1);
}

TEST_F(EngineTest, OutputsOfOneRequest_CountAgainstItsPrincipalsLimit) {
  EngineOptions options{.max_num_seqs = 4, .max_num_batched_tokens = 8};
  options.max_requests_per_principal = 3;
  MakeEngine(FakeModelOptions{}, options);
  const auto submit = [this](int32_t n) {
    std::unique_ptr<Request> request = MakeGreedy(MakePrompt(4), 3);
    request->n = n;
    return engine_->Submit(std::move(request)).status();
  };
  EXPECT_EQ(FieldOf(submit(4)), "n") << "waiting would not help";
  EXPECT_TRUE(submit(2).ok());
  EXPECT_EQ(submit(2).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(submit(1).ok());
  RunAll();
  EXPECT_TRUE(submit(3).ok());
}

TEST_F(EngineTest, LogitsThatAreNotNumbers_EndTheRequestWithInternal) {
  FakeModelOptions model;
  model.spread = std::numeric_limits<float>::quiet_NaN();
  MakeEngine(model, {.max_num_seqs = 2, .max_num_batched_tokens = 8});
  const auto stream = engine_->Submit(MakeGreedy(MakePrompt(4), 3));
  ASSERT_TRUE(stream.ok());
  RunAll();
  std::vector<FinishReason> reasons;
  for (Event event; (*stream)->TryNext(&event);) {
    if (event.kind == Event::Kind::kOutputFinished) reasons.push_back(event.reason);
  }
  EXPECT_EQ(reasons, std::vector<FinishReason>{FinishReason::kError});
  EXPECT_EQ((*stream)->status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string((*stream)->status().message()), HasSubstr("not numbers"));
}

TEST_F(EngineTest, RequestId_IsUniquePerPrincipalUntilItsStreamEnds) {
  MakeEngine(2, 8);
  const auto submit = [this](const char* principal) {
    std::unique_ptr<Request> request = MakeGreedy(MakePrompt(4), 3);
    request->id = "same";
    request->principal = principal;
    return engine_->Submit(std::move(request)).status();
  };
  EXPECT_TRUE(submit("ann").ok());
  EXPECT_EQ(submit("ann").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(submit("bob").ok());
  RunAll();
  EXPECT_TRUE(submit("ann").ok());
}

TEST_F(EngineTest, OverAnOperatorsCap_NamesFieldAndCap) {
  EngineOptions options{.max_num_seqs = 1, .max_num_batched_tokens = 8};
  options.max_prompt_tokens = 10;
  options.max_output_tokens = 20;
  MakeEngine(FakeModelOptions{}, options);
  absl::Status status = engine_->Submit(MakeGreedy(MakePrompt(11), 5)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(status), "prompt");
  EXPECT_THAT(std::string(status.message()), HasSubstr("at most 10 tokens"));
  status = engine_->Submit(MakeGreedy(MakePrompt(10), 21)).status();
  EXPECT_EQ(FieldOf(status), "stop.max_tokens");
  // Without a number the cap is the default.
  EXPECT_EQ(RunAndRead(Submit(MakeGreedy(MakePrompt(10), 0))).outputs[0].tokens.size(), 20u);
}

TEST_F(EngineTest, TailOnlyModel_RefusesWhatCanNeverFitAndShowsTheSum) {
  FakeModelOptions model;
  model.switch_over = kernels::kNeverSwitch;
  model.max_tail_tokens = 40;
  MakeEngine(model, {.max_num_seqs = 1, .max_num_batched_tokens = 8});
  const absl::Status status = engine_->Submit(MakeGreedy(MakePrompt(30), 11)).status();
  EXPECT_EQ(FieldOf(status), "stop.max_tokens");
  EXPECT_THAT(std::string(status.message()), HasSubstr("30 + 11 = 41"));
  EXPECT_EQ(FieldOf(engine_->Submit(MakeGreedy(MakePrompt(40), 0)).status()), "prompt");
  EXPECT_EQ(RunAndRead(Submit(MakeGreedy(MakePrompt(30), 10))).outputs[0].tokens.size(), 10u);
  EXPECT_EQ(RunAndRead(Submit(MakeGreedy(MakePrompt(30), 0))).outputs[0].tokens.size(), 10u);
}

TEST_F(EngineTest, Draining_RefusesNewAndFinishesOld) {
  MakeEngine(1, 8);
  const auto running = Submit(MakeGreedy(MakePrompt(4), 5));
  const auto waiting = Submit(MakeGreedy(MakePrompt(4), 5));
  engine_->RunStep();
  engine_->StopAdmission();
  EXPECT_EQ(engine_->Submit(MakeGreedy(MakePrompt(4), 5)).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(engine_->GetStatus().accepting);
  EXPECT_FALSE(engine_->WaitIdle(absl::Now() + absl::Milliseconds(5)));
  RunAll();
  EXPECT_TRUE(engine_->WaitIdle(absl::Now() + absl::Milliseconds(5)));
  EXPECT_EQ(RunAndRead({running, waiting})[1].outputs[0].tokens.size(), 5u);
}

TEST_F(EngineTest, CancelAll_EndsEverything) {
  MakeEngine(2, 8);
  std::vector<std::shared_ptr<EventStream>> streams;
  for (int idx = 0; idx < 5; ++idx) streams.push_back(Submit(MakeGreedy(MakePrompt(4), 1000)));
  for (int step = 0; step < 5; ++step) engine_->RunStep();
  engine_->CancelAll();
  engine_->RunStep();
  for (const auto& stream : streams) {
    ReadStream read;
    Drain(stream.get(), &read);
    EXPECT_TRUE(read.done);
    EXPECT_EQ(stream->status().code(), absl::StatusCode::kCancelled);
  }
  ExpectAllSlotsFree();
}

TEST_F(EngineTest, EngineDestroyed_StreamsEndAsCancelled) {
  MakeEngine(1, 8);
  const auto running = Submit(MakeGreedy(MakePrompt(4), 1000));
  const auto waiting = Submit(MakeGreedy(MakePrompt(4), 1000));
  engine_->RunStep();
  engine_.reset();
  for (const auto& stream : {running, waiting}) {
    ReadStream read;
    Drain(stream.get(), &read);
    EXPECT_TRUE(read.done);
    EXPECT_EQ(stream->status().code(), absl::StatusCode::kCancelled);
  }
}

TEST_F(EngineTest, DeviceFails_StepsRequestsGetInternalAndTheEngineIsUnhealthy) {
  MakeEngine(2, 8);
  const auto first = Submit(MakeGreedy(MakePrompt(4), 1000));
  const auto second = Submit(MakeGreedy(MakePrompt(4), 1000));
  const auto waiting = Submit(MakeGreedy(MakePrompt(4), 1000));
  for (int step = 0; step < 5; ++step) engine_->RunStep();
  model_->FailAfter(1);
  engine_->RunStep();
  for (const auto& stream : {first, second, waiting}) {
    ReadStream read;
    Drain(stream.get(), &read);
    EXPECT_TRUE(read.done);
    EXPECT_EQ(read.outputs[0].end.reason, FinishReason::kError);
    EXPECT_EQ(stream->status().code(),
              stream == waiting ? absl::StatusCode::kUnavailable : absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(stream->status().message()), HasSubstr("injected fault"));
  }
  EXPECT_FALSE(engine_->GetStatus().healthy);
  EXPECT_EQ(engine_->Submit(MakeGreedy(MakePrompt(4), 5)).status().code(), absl::StatusCode::kUnavailable);
  ExpectAllSlotsFree();
}

TEST_F(EngineTest, Timings_AddUp) {
  MakeEngine(1, 8);
  model_->on_forward = [this](const StepBatch&) { clock_.Advance(absl::Seconds(1)); };
  const auto first = Submit(MakeGreedy(MakePrompt(16), 3));   // 2 prompt steps, 2 decode steps
  const auto second = Submit(MakeGreedy(MakePrompt(16), 3));  // waits for these
  RunAndRead({first, second});
  EXPECT_DOUBLE_EQ(first->timings().queued, 0);
  EXPECT_DOUBLE_EQ(first->timings().prefill, 2);
  EXPECT_DOUBLE_EQ(first->timings().decode, 2);
  EXPECT_DOUBLE_EQ(first->timings().first_token, 2);
  EXPECT_DOUBLE_EQ(first->timings().total, 4);
  EXPECT_DOUBLE_EQ(second->timings().queued, 4);
  EXPECT_DOUBLE_EQ(second->timings().first_token, 6);
  EXPECT_DOUBLE_EQ(second->timings().total, 8);
}

TEST_F(EngineTest, WithoutAVocabulary_StopStringsAreRefusedAndIdsCome) {
  MakeEngine(1, 8);
  engine_ = Engine::Create(model_.get(), nullptr, {.max_num_seqs = 1, .clock = &clock_}).value();
  std::unique_ptr<Request> request = MakeGreedy(MakePrompt(4), 5);
  request->stop.stop = {"x"};
  EXPECT_EQ(FieldOf(engine_->Submit(std::move(request)).status()), "stop.strings");
  const ReadStream read = RunAndRead(Submit(MakeGreedy(MakePrompt(4), 5)));
  EXPECT_EQ(read.outputs[0].tokens, GreedyByHand(*model_, MakePrompt(4), 5));
  EXPECT_EQ(read.outputs[0].end.text_bytes, 0);
}

TEST(EngineOptionsTest, StateMemory_SetsTheNumberOfSlots) {
  FakeModel model;
  const int64_t slot_bytes = model.slot_floats() * 4;
  EngineOptions options;
  options.state_memory_bytes = 5 * slot_bytes + 100;
  auto engine = Engine::Create(&model, nullptr, options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ((*engine)->options().max_num_seqs, 5);
  EXPECT_EQ((*engine)->options().state_memory_bytes, 5 * slot_bytes);
  options.max_num_seqs = 6;
  EXPECT_EQ(FieldOf(Engine::Create(&model, nullptr, options).status()), "--max-num-seqs");
  options.state_memory_bytes = 10;
  EXPECT_EQ(FieldOf(Engine::Create(&model, nullptr, options).status()), "--state-memory");
}

TEST(EngineOptionsTest, MoreStateThanTheHostHas_SaysHowMuchIsNeeded) {
  FakeModelOptions model_options;
  model_options.num_layers = 1 << 20;
  FakeModel model(model_options);
  const absl::Status status = Engine::Create(&model, nullptr, {.max_num_seqs = 10000}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("lower --max-num-seqs"));
}

// The token before it waits for nothing.
TEST_F(EngineTest, StepThatOnlySwitchesOver_TellsReadersOfTheStepBefore) {
  class Counter final : public EventStream::Listener {
   public:
    void OnEvents() override { ++calls; }
    int calls = 0;
  };
  MakeEngine(1, 64);
  Counter counter;
  const auto stream = Submit(MakeRequest(MakePrompt(30), 8));
  stream->SetListener(&counter);
  while (model_->num_rows() < 32) ASSERT_TRUE(engine_->RunStep());  // the row at position 31 has brought a token
  const int64_t rows = model_->num_rows();
  const int calls = counter.calls;
  ASSERT_TRUE(engine_->RunStep());
  EXPECT_EQ(model_->num_rows(), rows);
  EXPECT_EQ(model_->num_switch_overs(), 1);
  EXPECT_EQ(counter.calls, calls + 1);
  stream->SetListener(nullptr);
}

}  // namespace
}  // namespace statehouse::testing
