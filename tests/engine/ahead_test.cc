// A model that takes the next step before the last one has ended: clients see what they see of one that does not,
// however their outputs end.
#include <gtest/gtest.h>

#include "tests/engine/ahead_model.h"
#include "tests/engine/engine_fixture.h"
#include "tests/engine/reference_output.h"

namespace statehouse::testing {
namespace {

class Ahead : public EngineTest {
 protected:
  void MakeAheadEngine(int64_t slots, const FakeModelOptions& model_options = {}) {
    model_options_ = model_options;
    options_.max_num_seqs = slots;
    options_.max_num_batched_tokens = 64;
    MakeEngineOn(std::make_unique<AheadModel>(model_options), options_);
  }
  AheadModel& model() { return static_cast<AheadModel&>(*model_); }
  // What one output must be, from the fake's plain definition.
  ReferenceOutput Wanted(const Request& request) { return Reference(*model_, *vocabulary_, request, 0); }

  FakeModelOptions model_options_;
  EngineOptions options_;
};

std::unique_ptr<Request> Plain(int32_t seed, int64_t max_tokens) {
  auto request = MakeRequest(MakePrompt(5 + seed % 9, seed), max_tokens);
  request->sampling.seed = static_cast<uint64_t>(seed);
  return request;
}

TEST_F(Ahead, StreamsThatOnlyDecode_RunAheadAndGetTheSameTokens) {
  MakeAheadEngine(4);
  std::vector<std::shared_ptr<EventStream>> streams;
  std::vector<Request> requests;
  for (int32_t seed = 1; seed <= 4; ++seed) {
    auto request = Plain(seed, 20 + seed);
    requests.push_back(*request);
    streams.push_back(Submit(std::move(request)));
  }
  const std::vector<ReadStream> reads = RunAndRead(streams);
  for (size_t i = 0; i < reads.size(); ++i) EXPECT_EQ(reads[i].outputs[0].tokens, Wanted(requests[i]).tokens);
  // All but the first of them, and those around the switch-over at 32.
  EXPECT_GE(model().num_ahead(), 14);
  // Ends that are known beforehand waste no row: 21 to 24 tokens, of which the prompt brings one.
  EXPECT_EQ(model().num_decode_rows(), 20 + 21 + 22 + 23);
  ExpectAllSlotsFree();
}

TEST_F(Ahead, OutputThatStopsByItself_LeavesACleanSlotToTheNext) {
  FakeModelOptions options;
  options.eos_ids = {3, 4, 5};
  MakeAheadEngine(2, options);
  int64_t stopped = 0;
  for (int32_t seed = 1; seed <= 24; ++seed) {
    auto request = Plain(seed, 40);
    if (seed % 3 == 0) request->stop.stop = {"ab", "c"};
    if (seed % 4 == 0) request->stop.stop_token_ids = {9, 10};
    const ReferenceOutput wanted = Wanted(*request);
    const ReadStream read = RunAndRead(Submit(std::move(request)));
    EXPECT_EQ(read.outputs[0].tokens, wanted.tokens);
    EXPECT_EQ(read.outputs[0].end.reason, wanted.reason);
    EXPECT_EQ(read.outputs[0].end.stop_index, wanted.stop_index);
    EXPECT_EQ(read.outputs[0].end.text_bytes, static_cast<int64_t>(wanted.text.size()));
    stopped += wanted.reason == FinishReason::kStop ? 1 : 0;
  }
  EXPECT_GT(stopped, 10);
  EXPECT_GT(model().num_ahead(), 50);
  ExpectAllSlotsFree();
}

TEST_F(Ahead, CancelledBetweenTwoSteps_DropsWhatItsRowBrings) {
  MakeAheadEngine(2);
  auto other_request = Plain(2, 60);
  const ReferenceOutput wanted = Wanted(*other_request);
  const auto cancelled = Submit(Plain(1, 60)), other = Submit(std::move(other_request));
  for (int step = 0; step < 10; ++step) engine_->RunStep();
  ASSERT_GT(model().num_ahead(), 3);
  ReadStream read;
  Drain(cancelled.get(), &read);
  const size_t before = read.outputs[0].tokens.size();
  cancelled->Cancel();
  engine_->RunStep();
  Drain(cancelled.get(), &read);
  EXPECT_TRUE(read.done);
  EXPECT_EQ(read.outputs[0].tokens.size(), before);
  // The slot goes to another one, while the first goes on.
  auto third_request = Plain(3, 30);
  const ReferenceOutput third_wanted = Wanted(*third_request);
  const auto third = Submit(std::move(third_request));
  const std::vector<ReadStream> reads = RunAndRead({other, third});
  EXPECT_EQ(reads[0].outputs[0].tokens, wanted.tokens);
  EXPECT_EQ(reads[1].outputs[0].tokens, third_wanted.tokens);
  ExpectAllSlotsFree();
}

TEST_F(Ahead, ReaderWithoutRoom_PausesAndLosesNothing) {
  options_.event_capacity = 4;
  MakeAheadEngine(2);
  auto request = Plain(1, 30);
  const ReferenceOutput wanted = Wanted(*request);
  const auto stream = Submit(std::move(request));
  RunAll();  // until its ring is full
  ReadStream read;
  for (int round = 0; round < 100 && !read.done; ++round) {
    Drain(stream.get(), &read);
    RunAll();
  }
  EXPECT_EQ(read.outputs[0].tokens, wanted.tokens);
  ExpectAllSlotsFree();
}

TEST_F(Ahead, SnapshotAtTheEnd_GoesOnAsIfNoRowHadBeenTooMany) {
  FakeModelOptions options;
  options.eos_ids = {3, 4, 5};
  options.may_be_taken_back = true;
  MakeAheadEngine(2, options);
  for (int32_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(seed);
    auto draft = SnapshotDraft::Reserve({model_->retention(), model_->config().num_layers}, 64).value();
    auto request = Plain(seed, 40);
    request->snapshots = {{SnapshotOrder::kAtEnd, draft}};
    std::vector<int32_t> tokens = request->prompt;
    const int64_t ahead_before = model().num_ahead();
    const ReadStream read = RunAndRead(Submit(std::move(request)));
    EXPECT_TRUE(read.outputs[0].tokens.size() < 4 || model().num_ahead() > ahead_before);
    tokens.insert(tokens.end(), read.outputs[0].tokens.begin(), read.outputs[0].tokens.end());
    if (read.outputs[0].end.reason == FinishReason::kLength) tokens.pop_back();  // the last one's row was not computed
    const auto snapshot = draft->Seal(tokens);
    ASSERT_NE(snapshot, nullptr);
    EXPECT_EQ(snapshot->position(), static_cast<int64_t>(tokens.size()));
    const std::vector<float> want = model_->LogitsAfter(tokens);
    EXPECT_TRUE(std::equal(want.begin(), want.end(), snapshot->logits().begin(), snapshot->logits().end()));
    auto next = MakeRequest(tokens, 20);
    next->prompt.push_back(seed);
    next->from = snapshot;
    const ReferenceOutput wanted = Wanted(*next);
    EXPECT_EQ(RunAndRead(Submit(std::move(next))).outputs[0].tokens, wanted.tokens);
  }
}

TEST_F(Ahead, CancelledWithARowQueued_LeavesASnapshotThatGoesOn) {
  FakeModelOptions options;
  options.may_be_taken_back = true;
  MakeAheadEngine(2, options);
  int64_t with_a_row_queued = 0;
  for (int32_t steps = 3; steps <= 45; ++steps) {  // past folds and the switch-over
    SCOPED_TRACE(steps);
    auto draft = SnapshotDraft::Reserve({model_->retention(), model_->config().num_layers}, 64).value();
    auto request = Plain(1, 60);
    request->snapshots = {{SnapshotOrder::kAtEnd, draft}};
    const std::vector<int32_t> prompt = request->prompt;
    const auto stream = Submit(std::move(request));
    for (int32_t step = 0; step < steps; ++step) engine_->RunStep();
    with_a_row_queued += model().num_under_way();
    stream->Cancel();
    const ReadStream read = RunAndRead(stream);
    EXPECT_EQ(read.outputs[0].end.reason, FinishReason::kCancelled);
    ASSERT_TRUE(draft->filled());
    std::vector<int32_t> tokens = prompt;
    tokens.insert(tokens.end(), read.outputs[0].tokens.begin(), read.outputs[0].tokens.end());
    // What was delivered has its rows, but for those behind the last step that ended.
    ASSERT_LE(draft->position(), static_cast<int64_t>(tokens.size()));
    EXPECT_GE(draft->position(), static_cast<int64_t>(tokens.size()) - 1);
    tokens.resize(draft->position());
    auto next = MakeRequest(tokens, 20);
    next->prompt.push_back(steps);
    next->from = draft->Seal(tokens);
    ASSERT_NE(next->from, nullptr);
    const ReferenceOutput wanted = Wanted(*next);
    EXPECT_EQ(RunAndRead(Submit(std::move(next))).outputs[0].tokens, wanted.tokens);
    EXPECT_EQ(model_->violation(), "");
    ExpectAllSlotsFree();
  }
  EXPECT_GT(with_a_row_queued, 25);
}

TEST_F(Ahead, StepThatFailsBehindAnother_EndsItsRequestsWithTheError) {
  for (const int64_t call : {1, 2, 3}) {
    MakeAheadEngine(2);
    const auto stream = Submit(Plain(1, 60));
    for (int step = 0; step < 6; ++step) engine_->RunStep();
    ASSERT_GT(model().num_ahead(), 2);
    model_->FailAfter(call);
    const ReadStream read = RunAndRead(stream);
    EXPECT_EQ(read.outputs[0].end.reason, FinishReason::kError);
    EXPECT_EQ(stream->status().code(), absl::StatusCode::kInternal);
    EXPECT_FALSE(engine_->GetStatus().healthy);
    RunAll();
    EXPECT_EQ(model().num_under_way(), 0);
  }
}

TEST_F(Ahead, EngineDestroyedWithAStepQueued_LeavesTheModelToTheNextOne) {
  MakeAheadEngine(2);
  const auto stream = Submit(Plain(1, 60));
  for (int step = 0; step < 6; ++step) engine_->RunStep();
  ASSERT_EQ(model().num_under_way(), 1);
  engine_.reset();
  EXPECT_EQ(model().num_under_way(), 0);
}

}  // namespace
}  // namespace statehouse::testing
