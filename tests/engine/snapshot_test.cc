// Snapshots taken by requests, and requests that start from them: the same tokens as if nothing had been interrupted.
#include "engine/state/snapshot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "engine/errors.h"
#include "tests/engine/engine_fixture.h"
#include "tests/engine/reference_output.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

class SnapshotTest : public EngineTest {
 protected:
  std::shared_ptr<SnapshotDraft> Draft() {
    auto draft =
        SnapshotDraft::Reserve({model_->retention(), model_->config().num_layers}, model_->config().vocab_size);
    EXPECT_TRUE(draft.ok()) << draft.status();
    return *draft;
  }
  // The snapshot of a prompt at `position`, with all of the prompt's rows computed here.
  std::shared_ptr<const Snapshot> SnapshotAt(const std::vector<int32_t>& prompt, int64_t position) {
    auto request = MakeRequest(prompt, 1);
    auto draft = Draft();
    request->snapshots = {{position, draft}};
    RunAndRead(Submit(std::move(request)));
    EXPECT_TRUE(draft->filled());
    return draft->filled() ? draft->Seal(prompt) : nullptr;
  }
  void ExpectReference(const Request& request, const ReadStream& read) {
    for (int32_t output = 0; output < request.n; ++output) {
      const ReferenceOutput expected = Reference(*model_, *vocabulary_, request, output);
      EXPECT_EQ(read.outputs[output].tokens, expected.tokens) << "output " << output;
      EXPECT_EQ(read.outputs[output].end.reason, expected.reason);
    }
    EXPECT_EQ(model_->violation(), "");
  }
};

TEST_F(SnapshotTest, RequestFromAnyPosition_ContinuesAsIfItHadComputedAll) {
  MakeEngine(2, 16);
  const std::vector<int32_t> prompt = MakePrompt(70);
  for (const int64_t position : {1, 7, 8, 9, 31, 32, 33, 40, 41, 69, 70}) {
    SCOPED_TRACE(position);
    const auto snapshot = SnapshotAt(prompt, position);
    ASSERT_NE(snapshot, nullptr);
    EXPECT_EQ(snapshot->position(), position);
    const int64_t rows_before = model_->num_rows();
    auto request = MakeRequest(prompt, 12);
    request->from = snapshot;
    const Request copy = *request;
    const auto stream = Submit(std::move(request));
    ExpectReference(copy, RunAndRead(stream));
    EXPECT_EQ(model_->num_rows() - rows_before, 70 - position + 11) << "rows were computed again";
    EXPECT_EQ(stream->usage().cached_tokens, position);
    ExpectAllSlotsFree();
  }
}

TEST_F(SnapshotTest, ADeviceThatFailsWhileASnapshotIsCopied_SealsNothingAndFailsTheRequest) {
  MakeEngine(2, 16);
  auto request = MakeRequest(MakePrompt(40), 5);
  auto draft = Draft();
  request->snapshots = {{20, draft}};
  model_->FailSlotReads();
  const auto stream = Submit(std::move(request));
  RunAndRead(stream);
  EXPECT_FALSE(draft->filled());
  EXPECT_EQ(stream->status().code(), absl::StatusCode::kInternal) << stream->status();
  EXPECT_THAT(std::string(stream->status().message()), HasSubstr("a copy out of a slot failed"));
  EXPECT_FALSE(engine_->GetStatus().healthy);
}

TEST_F(SnapshotTest, ShortSequence_CostsOnlyWhatExists) {
  MakeEngine(2, 16);
  const std::vector<int32_t> prompt = MakePrompt(200);
  EXPECT_LT(SnapshotAt(prompt, 8)->bytes(), SnapshotAt(prompt, 24)->bytes());
  const int64_t past = SnapshotAt(prompt, 100)->num_region_floats();
  EXPECT_EQ(SnapshotAt(prompt, 200)->num_region_floats(), past) << "past the switch-over it no longer grows";
}

TEST_F(SnapshotTest, TurnAfterTurn_IsOneConversation) {
  MakeEngine(2, 16);
  std::vector<int32_t> tokens;
  std::shared_ptr<const Snapshot> head;
  for (int turn = 0; turn < 8; ++turn) {
    const std::vector<int32_t> said = MakePrompt(11, turn);
    tokens.insert(tokens.end(), said.begin(), said.end());
    auto request = MakeRequest(tokens, 5);
    auto draft = Draft();
    request->from = head;
    request->snapshots = {{SnapshotOrder::kAtEnd, draft}};
    const Request copy = *request;
    const ReadStream read = RunAndRead(Submit(std::move(request)));
    ExpectReference(copy, read);
    tokens.insert(tokens.end(), read.outputs[0].tokens.begin(), read.outputs[0].tokens.end());
    ASSERT_TRUE(draft->filled());
    EXPECT_EQ(draft->position(), static_cast<int64_t>(tokens.size()) - 1) << "the last token has had no row";
    head = draft->Seal(tokens);
    EXPECT_FALSE(head->logits().empty());
  }
  EXPECT_EQ(model_->num_rows(), static_cast<int64_t>(tokens.size()) - 1) << "no token was computed twice";
  ExpectAllSlotsFree();
}

TEST_F(SnapshotTest, ExactRepeatOfAPrompt_NeedsNoStep) {
  MakeEngine(2, 16);
  const std::vector<int32_t> prompt = MakePrompt(40);
  const auto snapshot = SnapshotAt(prompt, 40);
  const int64_t rows_before = model_->num_rows();
  auto request = MakeRequest(prompt, 1);
  request->from = snapshot;
  const Request copy = *request;
  ExpectReference(copy, RunAndRead(Submit(std::move(request))));
  EXPECT_EQ(model_->num_rows(), rows_before);
}

TEST_F(SnapshotTest, SeveralOutputs_ForkFromOneSnapshotWithAnyNumberOfSlots) {
  for (const int64_t slots : {1, 2, 5}) {
    for (const int64_t position : {20, 32, 50}) {
      MakeEngine(slots, 16);
      const std::vector<int32_t> prompt = MakePrompt(50);
      auto request = MakeRequest(prompt, 6);
      request->from = SnapshotAt(prompt, position);
      request->n = 4;
      const Request copy = *request;
      ExpectReference(copy, RunAndRead(Submit(std::move(request))));
      ExpectAllSlotsFree();
    }
  }
}

TEST_F(SnapshotTest, CancelledRequest_LeavesASnapshotThatGoesOn) {
  MakeEngine(2, 16);
  const std::vector<int32_t> prompt = MakePrompt(60);
  for (const int64_t steps : {1, 2, 3, 5, 9, 14}) {
    auto request = MakeRequest(prompt, 50);
    auto draft = Draft();
    request->snapshots = {{SnapshotOrder::kAtEnd, draft}};
    const Request copy = *request;
    const auto stream = Submit(std::move(request));
    for (int64_t step = 0; step < steps; ++step) engine_->RunStep();
    stream->Cancel();
    const ReadStream read = RunAndRead(stream);
    EXPECT_EQ(stream->status().code(), absl::StatusCode::kCancelled);
    ASSERT_TRUE(draft->filled()) << steps << " steps";
    std::vector<int32_t> tokens = prompt;
    tokens.insert(tokens.end(), read.outputs[0].tokens.begin(), read.outputs[0].tokens.end());
    ASSERT_LE(draft->position(), static_cast<int64_t>(tokens.size()));
    const auto snapshot = draft->Seal(tokens);

    auto again = MakeRequest(tokens, 10);
    again->from = snapshot->position() < static_cast<int64_t>(tokens.size()) ? snapshot : nullptr;
    const Request second = *again;
    ExpectReference(second, RunAndRead(Submit(std::move(again))));
    ExpectAllSlotsFree();
  }
}

TEST_F(SnapshotTest, RequestThatEndsInTheQueue_FillsNoDraft) {
  MakeEngine(1, 16);
  const auto running = Submit(MakeRequest(MakePrompt(5), 100));
  engine_->RunStep();
  auto request = MakeRequest(MakePrompt(5), 5);
  auto draft = Draft();
  request->snapshots = {{3, Draft()}, {SnapshotOrder::kAtEnd, draft}};
  const auto queued = Submit(std::move(request));
  queued->Cancel();
  RunAndRead({queued, running});
  EXPECT_FALSE(draft->filled());
}

TEST_F(SnapshotTest, SnapshotThatDoesNotFit_IsRefusedByField) {
  MakeEngine(2, 16);
  const std::vector<int32_t> prompt = MakePrompt(20);
  const auto snapshot = SnapshotAt(prompt, 10);
  const auto refused = [&](const std::function<void(Request*)>& change) {
    auto request = MakeRequest(prompt, 3);
    request->from = snapshot;
    change(request.get());
    const absl::Status status = engine_->Submit(std::move(request)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refused([](Request* request) { ++request->prompt[4]; }), HasSubstr("token 4"));
  EXPECT_THAT(refused([](Request* request) { request->prompt.resize(9); }), HasSubstr("a snapshot of 10 tokens"));
  EXPECT_THAT(refused([](Request* request) { request->prompt.resize(10); }), HasSubstr("without logits"));
  EXPECT_THAT(refused([](Request* request) { request->num_prompt_logprobs = 0; }), HasSubstr("prompt_logprobs"));
  EXPECT_THAT(refused([&](Request* request) { request->snapshots = {{10, Draft()}}; }), HasSubstr("[11, 20]"));
  EXPECT_THAT(refused([&](Request* request) { request->snapshots = {{15, nullptr}}; }), HasSubstr("no draft"));
  EXPECT_THAT(refused([&](Request* request) {
                request->n = 2;
                request->snapshots = {{SnapshotOrder::kAtEnd, Draft()}};
              }),
              HasSubstr("one output"));

  FakeModelOptions other;
  other.chunk = 16;
  MakeEngine(other, {.max_num_seqs = 2, .max_num_batched_tokens = 16});
  auto request = MakeRequest(prompt, 3);
  request->from = snapshot;
  EXPECT_THAT(std::string(engine_->Submit(std::move(request)).status().message()), HasSubstr("another model's shape"));
}

// Conversations that grow, fork, are cut short and start over, with company, against the plain model that computes all.
TEST_F(SnapshotTest, RandomConversations_EqualThoseThatWereNeverInterrupted) {
  constexpr uint32_t kSeed = 20;
  std::mt19937 random(kSeed);
  int64_t turns = 0;
  for (int round = 0; round < 20; ++round) {
    EngineOptions options{.max_num_seqs = static_cast<int64_t>(1 + random() % 4),
                          .max_num_batched_tokens = static_cast<int64_t>(8 + random() % 40)};
    MakeEngine(FakeModelOptions{.switch_over = random() % 3 == 0 ? 0 : 32}, options);
    std::vector<std::shared_ptr<const Snapshot>> kept = {nullptr};
    for (int turn = 0; turn < 15; ++turn, ++turns) {
      std::vector<std::shared_ptr<EventStream>> streams;
      std::vector<Request> copies;
      std::vector<std::vector<SnapshotOrder>> orders;
      for (int mate = 0; mate < 3; ++mate) {
        const auto from = kept[random() % kept.size()];
        std::vector<int32_t> prompt;
        if (from != nullptr) prompt.assign(from->tokens().begin(), from->tokens().end());
        const std::vector<int32_t> said = MakePrompt(1 + random() % 30, random());
        prompt.insert(prompt.end(), said.begin(), said.end());
        auto request = MakeRequest(prompt, 1 + random() % 8);
        request->from = from;
        const int64_t cut = static_cast<int64_t>(prompt.size() - random() % said.size());
        if (random() % 2 == 0) request->snapshots.push_back({cut, Draft()});
        if (random() % 2 == 0) request->snapshots.push_back({SnapshotOrder::kAtEnd, Draft()});
        orders.push_back(request->snapshots);
        copies.push_back(*request);
        streams.push_back(Submit(std::move(request)));
      }
      const std::vector<ReadStream> reads = RunAndRead(streams);
      for (size_t mate = 0; mate < reads.size(); ++mate) {
        ExpectReference(copies[mate], reads[mate]);
        std::vector<int32_t> tokens = copies[mate].prompt;
        tokens.insert(tokens.end(), reads[mate].outputs[0].tokens.begin(), reads[mate].outputs[0].tokens.end());
        for (const SnapshotOrder& order : orders[mate]) {
          ASSERT_TRUE(order.into->filled());
          kept.push_back(order.into->Seal(tokens));
        }
      }
      ASSERT_FALSE(HasFailure()) << "seed " << kSeed << ", round " << round << ", turn " << turn;
    }
    ExpectAllSlotsFree();
  }
  RecordProperty("turns", static_cast<int>(turns));
}

}  // namespace
}  // namespace statehouse::testing
