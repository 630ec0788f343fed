// A model that chooses tokens itself: the engine asks it for what it can choose, takes the host's way for the rest, and
// the client sees no difference.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "engine/sampling/sampler.h"
#include "tests/engine/engine_fixture.h"

namespace statehouse::testing {
namespace {

// Chooses with the host's sampler, and copies only what is to be copied.
class ChoosingModel final : public FakeModel {
 public:
  using FakeModel::FakeModel;
  bool chooses_tokens() const override { return true; }
  absl::Status BeginForward(const StepBatch& batch, const StepResults& results) override {
    all_.assign(results.logits.size(), 0.0f);
    results_ = results;
    return Forward(batch, all_);
  }
  absl::Status EndForward() override {
    const int64_t vocab = config().vocab_size;
    Sampler sampler(vocab);
    for (size_t row = 0; row < results_.uses.size(); ++row) {
      const LogitUse& use = results_.uses[row];
      const std::span<const float> logits(all_.data() + row * vocab, static_cast<size_t>(vocab));
      const std::span<float> to = results_.logits.subspan(row * vocab, vocab);
      if (use.copies) {
        std::copy(logits.begin(), logits.end(), to.begin());
        ++num_copied;
      } else {
        std::fill(to.begin(), to.end(), std::numeric_limits<float>::quiet_NaN());
      }
      if (!use.chooses) continue;
      ++num_chosen;
      SamplingParams params;
      params.temperature = use.choice.temperature;
      params.top_k = use.choice.top_k;
      params.top_p = use.choice.top_p;
      params.min_p = use.choice.min_p;
      ChoiceContext context;
      context.key = {use.choice.seed, use.choice.output, use.choice.position};
      results_.tokens[row] = lost_numbers ? -1 : sampler.Choose(SamplingPlan(params, vocab), context, logits);
    }
    return absl::OkStatus();
  }

  absl::Status ReadLogits(int64_t logit_row, std::span<float> to) override {
    EXPECT_TRUE(results_.uses[logit_row].keeps);
    std::copy_n(all_.begin() + logit_row * config().vocab_size, to.size(), to.begin());
    ++num_read;
    return absl::OkStatus();
  }

  bool lost_numbers = false;  // as if no logit were a number
  int64_t num_copied = 0, num_chosen = 0, num_read = 0;

 private:
  std::vector<float> all_;
  StepResults results_;
};

ReadStream RunToTheEnd(Model* model, std::unique_ptr<Request> request) {
  const FakeVocabulary vocabulary = LetterVocabulary(64);
  FakeClock clock;
  auto engine = Engine::Create(model, &vocabulary, {.max_num_seqs = 4, .max_num_batched_tokens = 32, .clock = &clock});
  EXPECT_TRUE(engine.ok()) << engine.status();
  const auto stream = (*engine)->Submit(std::move(request));
  EXPECT_TRUE(stream.ok()) << stream.status();
  ReadStream read;
  for (int step = 0; !read.done && step < 10000; ++step) {
    (*engine)->RunStep();
    Drain(stream->get(), &read);
  }
  EXPECT_TRUE(read.done);
  return read;
}

std::unique_ptr<Request> Plain() {
  auto request = MakeRequest(MakePrompt(20), 40);
  request->sampling.temperature = 0.9;
  request->sampling.top_p = 0.9;
  return request;
}

// The same tokens and log probabilities from both models. Returns what the choosing one did.
std::pair<int64_t, int64_t> Compare(const std::function<std::unique_ptr<Request>()>& make) {
  FakeModel host;
  ChoosingModel model;
  const ReadStream want = RunToTheEnd(&host, make()), got = RunToTheEnd(&model, make());
  EXPECT_EQ(got.outputs.size(), want.outputs.size());
  for (size_t i = 0; i < std::min(got.outputs.size(), want.outputs.size()); ++i) {
    EXPECT_EQ(got.outputs[i].tokens, want.outputs[i].tokens);
    EXPECT_EQ(got.outputs[i].logprobs, want.outputs[i].logprobs);
    EXPECT_EQ(got.outputs[i].end.reason, want.outputs[i].end.reason);
  }
  return {model.num_chosen, model.num_copied};
}

TEST(ModelChoice, PlainRequest_IsChosenByTheModelAndNothingIsCopied) {
  const auto [chosen, copied] = Compare(Plain);
  EXPECT_EQ(chosen, 40);
  EXPECT_EQ(copied, 0);
}

TEST(ModelChoice, Logprobs_AreFormedFromCopiedLogits) {
  const auto [chosen, copied] = Compare([] {
    auto request = Plain();
    request->num_logprobs = 3;
    return request;
  });
  EXPECT_EQ(chosen, 40);
  EXPECT_EQ(copied, 40);
}

TEST(ModelChoice, SnapshotAtTheEnd_HoldsTheLastLogits) {
  for (const bool chooses : {false, true}) {
    std::unique_ptr<FakeModel> model = chooses ? std::make_unique<ChoosingModel>() : std::make_unique<FakeModel>();
    auto draft = SnapshotDraft::Reserve({model->retention(), model->config().num_layers}, 64).value();
    auto request = Plain();
    request->snapshots = {{SnapshotOrder::kAtEnd, draft}};
    const std::vector<int32_t> prompt = request->prompt;
    const ReadStream read = RunToTheEnd(model.get(), std::move(request));
    std::vector<int32_t> tokens = prompt;
    tokens.insert(tokens.end(), read.outputs[0].tokens.begin(), read.outputs[0].tokens.end());
    tokens.pop_back();  // the last one's row was not computed
    const auto snapshot = draft->Seal(tokens);
    ASSERT_NE(snapshot, nullptr);
    const std::vector<float> want = model->LogitsAfter(tokens);
    EXPECT_TRUE(std::equal(want.begin(), want.end(), snapshot->logits().begin(), snapshot->logits().end()));
    if (!chooses) continue;
    // Those of the last row alone.
    EXPECT_EQ(static_cast<ChoosingModel*>(model.get())->num_read, 1);
    EXPECT_EQ(static_cast<ChoosingModel*>(model.get())->num_copied, 0);
  }
}

TEST(ModelChoice, WhatTheModelHasNot_IsChosenByTheHost) {
  const std::vector<std::function<void(Request*)>> edits = {
      [](Request* request) { request->sampling.repetition_penalty = 1.2; },
      [](Request* request) {
        request->sampling.logit_bias = {{3, 1.0f}};
      },
      [](Request* request) { request->sampling.banned_token_ids = {5}; },
      [](Request* request) { request->sampling.typical_p = 0.8; },
      [](Request* request) { request->n = 3; },  // the first tokens; then each output for itself
      [](Request* request) {
        request->stop.min_tokens = 10;
        request->stop.stop_token_ids = {1, 2, 3, 4};
      },
  };
  const int64_t want_chosen[] = {0, 0, 0, 0, 3 * 39, 30};
  for (size_t i = 0; i < edits.size(); ++i) {
    SCOPED_TRACE(i);
    const auto [chosen, copied] = Compare([&] {
      auto request = Plain();
      edits[i](request.get());
      return request;
    });
    if (i == 5) {
      EXPECT_GT(chosen, 0);  // once there are enough tokens
      EXPECT_LE(chosen, want_chosen[i]);
    } else {
      EXPECT_EQ(chosen, want_chosen[i]);
    }
    EXPECT_GT(copied, 0);
  }
}

TEST(ModelChoice, NoNumber_EndsTheRequestWithAnError) {
  ChoosingModel model;
  model.lost_numbers = true;
  const ReadStream read = RunToTheEnd(&model, Plain());
  EXPECT_EQ(read.outputs[0].end.reason, FinishReason::kError);
  EXPECT_TRUE(read.outputs[0].tokens.empty());
}

}  // namespace
}  // namespace statehouse::testing
