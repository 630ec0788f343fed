// Text as the client rebuilds it: its own detokenizer over the ids, cut at text_bytes, against the whole decoded and
// searched.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tests/engine/engine_fixture.h"
#include "tests/engine/reference_output.h"

namespace statehouse::testing {
namespace {

// Pieces that meet across tokens: letters, whole and broken characters, a special token, nothing.
FakeVocabulary PieceVocabulary() {
  return FakeVocabulary({"a", "b", "ab", "ba", "aab", "abba", "bb", "\xE2\x82", "\xAC", "\xE2\x82\xAC", "\xE2",
                         "\xF0\x9F", "\x98\x80", "\xFF", "", "<|special|>"},
                        {15});
}

// The client's side of event_stream.h.
class Client {
 public:
  explicit Client(const Vocabulary* vocabulary) : detokenizer_(vocabulary) {}
  void Take(const Event& event) {
    if (event.kind == Event::Kind::kToken) detokenizer_.Append(event.token, &decoded_);
    if (event.kind == Event::Kind::kOutputFinished) detokenizer_.Flush(&decoded_);
    ASSERT_GE(event.text_bytes, static_cast<int64_t>(shown_)) << "text was taken back";
    ASSERT_LE(event.text_bytes, static_cast<int64_t>(decoded_.size()));
    shown_ = event.text_bytes;
  }
  std::string text() const { return decoded_.substr(0, shown_); }

 private:
  Detokenizer detokenizer_;
  std::string decoded_;
  size_t shown_ = 0;
};

class TextTest : public EngineTest {
 protected:
  void SetUp() override {
    FakeModelOptions options;
    options.vocab_size = 16;
    options.spread = 1;
    options.eos_ids = {14};
    model_ = std::make_unique<FakeModel>(options);
    vocabulary_ = std::make_unique<FakeVocabulary>(PieceVocabulary());
    engine_ = Engine::Create(model_.get(), vocabulary_.get(), {.max_num_seqs = 3, .clock = &clock_}).value();
  }
  std::string Rebuild(const ReadOutput& output) {
    Client client(vocabulary_.get());
    for (const Event& event : output.events) client.Take(event);
    client.Take(output.end);
    return client.text();
  }
};

std::string RandomStop(std::mt19937* random) {
  static const std::vector<std::string> kParts = {"a", "b", "ab", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "bba"};
  std::string stop;
  for (int parts = 1 + (*random)() % 3; parts > 0; --parts) stop += kParts[(*random)() % kParts.size()];
  return stop;
}

TEST_F(TextTest, RandomRequests_EqualThePlainModel) {
  std::mt19937 random(21);
  int stopped = 0;
  for (int trial = 0; trial < 300; ++trial) {
    std::unique_ptr<Request> request = MakeRequest(MakePrompt(3, trial, 16), 1 + random() % 40);
    request->sampling.seed = random();
    for (int count = random() % 4; count > 0; --count) request->stop.stop.push_back(RandomStop(&random));
    request->stop.include_stop = random() % 2 == 0;
    request->stop.ignore_eos = random() % 2 == 0;
    if (random() % 3 == 0) request->stop.min_tokens = random() % request->stop.max_tokens;
    if (random() % 3 == 0) request->stop.stop_token_ids = {13, 6};
    request->n = 1 + random() % 3;
    const Request copy = *request;
    const ReadStream read = RunAndRead(Submit(std::move(request)));
    for (int32_t output = 0; output < copy.n; ++output) {
      const ReferenceOutput expected = Reference(*model_, *vocabulary_, copy, output);
      const ReadOutput& actual = read.outputs[output];
      ASSERT_EQ(actual.tokens, expected.tokens) << "trial " << trial;
      EXPECT_EQ(actual.end.reason, expected.reason);
      EXPECT_EQ(actual.end.stop_index, expected.stop_index);
      EXPECT_EQ(actual.end.stop_token, expected.stop_token);
      EXPECT_EQ(Rebuild(actual), expected.text) << "trial " << trial;
      stopped += actual.end.stop_index >= 0;
    }
  }
  EXPECT_GT(stopped, 100);
}

TEST_F(TextTest, MinTokens_KeepsEosAway) {
  std::unique_ptr<Request> request = MakeRequest(MakePrompt(3, 1, 16), 200);
  request->stop.min_tokens = 150;
  request->stop.stop = {"a"};
  const ReadStream read = RunAndRead(Submit(std::move(request)));
  EXPECT_GE(read.outputs[0].tokens.size(), 150u);
  for (int idx = 0; idx < 149; ++idx) EXPECT_NE(read.outputs[0].tokens[idx], 14);
  EXPECT_EQ(read.outputs[0].end.reason, FinishReason::kStop);
}

TEST_F(TextTest, ShownSpecialTokens_CountAsText) {
  std::unique_ptr<Request> request = MakeRequest({1}, 3);
  request->sampling.allowed_token_ids = {15};
  request->show_special_tokens = true;
  EXPECT_EQ(RunAndRead(Submit(std::move(request))).outputs[0].end.text_bytes, 3 * 11);
  request = MakeRequest({1}, 3);
  request->sampling.allowed_token_ids = {15};
  EXPECT_EQ(RunAndRead(Submit(std::move(request))).outputs[0].end.text_bytes, 0);
}

TEST_F(TextTest, CancelledOutput_ShowsWhatWasHeldBack) {
  std::unique_ptr<Request> request = MakeRequest({1}, 100);
  request->sampling.allowed_token_ids = {0};  // "a"
  request->stop.stop = {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"};
  const auto stream = Submit(std::move(request));
  for (int step = 0; step < 5; ++step) engine_->RunStep();
  stream->Cancel();
  engine_->RunStep();
  ReadStream read;
  Drain(stream.get(), &read);
  ASSERT_EQ(read.outputs[0].tokens.size(), 5u);
  EXPECT_EQ(read.outputs[0].events.back().text_bytes, 0);
  EXPECT_EQ(read.outputs[0].end.text_bytes, 5);
}

class EndsAfterThree final : public LogitsMask {
 public:
  void Apply(std::span<const int32_t> output, std::span<float> logits) override {
    if (output.size() < 3) return;
    std::fill(logits.begin(), logits.end(), -std::numeric_limits<float>::infinity());
  }
};

TEST_F(TextTest, MaskThatAllowsNothing_EndsTheOutput) {
  std::unique_ptr<Request> request = MakeRequest({1}, 100);
  request->sampling.mask = std::make_shared<EndsAfterThree>();
  request->stop.ignore_eos = true;
  request->n = 2;
  const ReadStream read = RunAndRead(Submit(std::move(request)));
  for (const ReadOutput& output : read.outputs) {
    EXPECT_EQ(output.tokens.size(), 3u);
    EXPECT_EQ(output.end.reason, FinishReason::kStop);
    EXPECT_EQ(output.end.stop_token, -1);
  }
}

TEST_F(TextTest, Logprobs_ComeForTokensAndPrompt) {
  std::unique_ptr<Request> request = MakeRequest(MakePrompt(50, 3, 16), 20);
  request->num_logprobs = 5;
  request->num_prompt_logprobs = 20;  // more than the vocabulary has
  request->stop.ignore_eos = true;
  request->sampling.repetition_penalty = 2;
  const Request copy = *request;
  const ReadStream read = RunAndRead(Submit(std::move(request)));
  ASSERT_EQ(read.prompt_logprobs.size(), 49u);
  std::vector<int32_t> history = {copy.prompt[0]};
  const auto check = [&](const Event& event, int32_t num_top) {
    const std::vector<float> logits = model_->LogitsAfter(history);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    EXPECT_EQ(event.position, static_cast<int64_t>(history.size()));
    EXPECT_NEAR(event.logprob, logits[event.token] - std::log(sum), 1e-5);
    ASSERT_EQ(event.num_top, num_top);
    for (int32_t idx = 1; idx < num_top; ++idx) EXPECT_GE(event.top[idx - 1].logprob, event.top[idx].logprob);
    EXPECT_NEAR(event.top[0].logprob, *std::max_element(logits.begin(), logits.end()) - std::log(sum), 1e-5);
    history.push_back(event.token);
  };
  for (const Event& event : read.prompt_logprobs) check(event, 16);
  EXPECT_EQ(history, copy.prompt);
  for (const Event& event : read.outputs[0].events) check(event, 5);
}

TEST_F(TextTest, PromptLogprobsOfASlowReader_PauseThePrompt) {
  engine_ = Engine::Create(model_.get(), vocabulary_.get(), {.max_num_seqs = 1, .event_capacity = 4, .clock = &clock_})
                .value();
  std::unique_ptr<Request> request = MakeRequest(MakePrompt(50, 3, 16), 5);
  request->num_prompt_logprobs = 0;
  request->stop.ignore_eos = true;
  request->n = 3;
  const auto stream = Submit(std::move(request));
  ReadStream read;
  while (!read.done) {
    RunAll();
    Drain(stream.get(), &read);
  }
  EXPECT_EQ(read.prompt_logprobs.size(), 49u);
  for (const ReadOutput& output : read.outputs) EXPECT_EQ(output.tokens.size(), 5u);
}

}  // namespace
}  // namespace statehouse::testing
