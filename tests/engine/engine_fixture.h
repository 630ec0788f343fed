// What engine tests share: an engine on a FakeModel with a FakeClock, driven by RunStep(), and readers of streams.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_model.h"
#include "tests/support/fake_vocabulary.h"

namespace statehouse::testing {

// Everything one output sent.
struct ReadOutput {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<Event> events;  // kToken
  bool finished = false;
  Event end;  // kOutputFinished
};

struct ReadStream {
  bool started = false;
  uint64_t seed = 0;
  std::vector<Event> prompt_logprobs;
  std::vector<ReadOutput> outputs;
  bool done = false;
};

// Sorts an event into what was read so far, and checks the stream's grammar.
inline void Take(const Event& event, ReadStream* read) {
  ASSERT_FALSE(read->done) << "an event after kDone";
  switch (event.kind) {
    case Event::Kind::kStarted:
      ASSERT_FALSE(read->started);
      read->started = true;
      read->seed = event.seed;
      return;
    case Event::Kind::kPromptLogprob:
      ASSERT_TRUE(read->started);
      read->prompt_logprobs.push_back(event);
      return;
    case Event::Kind::kToken: {
      ASSERT_TRUE(read->started);
      ReadOutput& output = read->outputs.at(event.output);
      ASSERT_FALSE(output.finished) << "a token after the end of output " << event.output;
      output.tokens.push_back(event.token);
      output.logprobs.push_back(event.logprob);
      output.events.push_back(event);
      return;
    }
    case Event::Kind::kOutputFinished: {
      ReadOutput& output = read->outputs.at(event.output);
      ASSERT_FALSE(output.finished);
      output.finished = true;
      output.end = event;
      return;
    }
    case Event::Kind::kDone:
      for (const ReadOutput& output : read->outputs) ASSERT_TRUE(output.finished) << "kDone before all outputs ended";
      read->done = true;
      return;
  }
}

// Takes what waits.
inline void Drain(EventStream* stream, ReadStream* read) {
  read->outputs.resize(stream->n());
  for (Event event; stream->TryNext(&event);) Take(event, read);
}

// Reads to the end, blocking: for engines with a thread.
inline ReadStream ReadAll(EventStream* stream) {
  ReadStream read;
  read.outputs.resize(stream->n());
  for (Event event; !read.done && stream->Next(&event);) Take(event, &read);
  return read;
}

// Token, position and log probabilities, bit for bit.
inline ::testing::AssertionResult SameBits(const Event& a, const Event& b) {
  const auto differs = [&a] { return ::testing::AssertionFailure() << "at position " << a.position << ": "; };
  if (a.token != b.token) return differs() << "tokens " << a.token << " and " << b.token;
  if (a.position != b.position) return differs() << "the other is at " << b.position;
  if (std::memcmp(&a.logprob, &b.logprob, sizeof(float)) != 0) {
    return differs() << "log probabilities " << a.logprob << " and " << b.logprob;
  }
  if (a.num_top != b.num_top) return differs() << a.num_top << " and " << b.num_top << " alternatives";
  for (int32_t idx = 0; idx < a.num_top; ++idx) {
    const bool same = a.top[idx].token == b.top[idx].token &&
                      std::memcmp(&a.top[idx].logprob, &b.top[idx].logprob, sizeof(float)) == 0;
    if (!same) return differs() << "alternative " << idx;
  }
  return ::testing::AssertionSuccess();
}

inline ::testing::AssertionResult SameBits(const ReadOutput& output, const ReadOutput& expected,
                                           bool may_be_shorter = false) {
  const size_t size = output.events.size();
  if (size > expected.events.size() || (size < expected.events.size() && !may_be_shorter)) {
    return ::testing::AssertionFailure() << size << " tokens instead of " << expected.events.size();
  }
  for (size_t idx = 0; idx < size; ++idx) {
    if (auto same = SameBits(output.events[idx], expected.events[idx]); !same) return same;
  }
  return ::testing::AssertionSuccess();
}

inline ::testing::AssertionResult SameBits(const ReadStream& read, const ReadStream& expected) {
  if (read.prompt_logprobs.size() != expected.prompt_logprobs.size()) {
    return ::testing::AssertionFailure() << read.prompt_logprobs.size() << " log probabilities of the prompt";
  }
  for (size_t idx = 0; idx < read.prompt_logprobs.size(); ++idx) {
    if (auto same = SameBits(read.prompt_logprobs[idx], expected.prompt_logprobs[idx]); !same) return same;
  }
  if (read.outputs.size() != expected.outputs.size()) {
    return ::testing::AssertionFailure() << read.outputs.size() << " outputs";
  }
  for (size_t idx = 0; idx < read.outputs.size(); ++idx) {
    if (auto same = SameBits(read.outputs[idx], expected.outputs[idx]); !same) return same << " of output " << idx;
  }
  return ::testing::AssertionSuccess();
}

inline std::vector<int32_t> MakePrompt(int64_t size, int32_t seed = 1, int32_t vocab_size = 64) {
  std::vector<int32_t> prompt(size);
  uint32_t state = static_cast<uint32_t>(seed) * 2654435761u + 1;
  for (int32_t& token : prompt) {
    state = state * 1664525u + 1013904223u;
    token = static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(vocab_size));
  }
  return prompt;
}

inline std::unique_ptr<Request> MakeRequest(std::vector<int32_t> prompt, int64_t max_tokens) {
  auto request = std::make_unique<Request>();
  request->prompt = std::move(prompt);
  request->stop.max_tokens = max_tokens;
  request->sampling.seed = 17;
  return request;
}

class EngineTest : public ::testing::Test {
 protected:
  void MakeEngine(const FakeModelOptions& model_options, EngineOptions options) {
    MakeEngineOn(std::make_unique<FakeModel>(model_options), options);
  }
  void MakeEngineOn(std::unique_ptr<FakeModel> model, EngineOptions options) {
    engine_.reset();
    model_ = std::move(model);
    vocabulary_ = std::make_unique<FakeVocabulary>(LetterVocabulary(static_cast<int32_t>(model_->config().vocab_size)));
    options.clock = &clock_;
    absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Create(model_.get(), vocabulary_.get(), options);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = std::move(*engine);
  }
  void MakeEngine(int64_t slots, int64_t rows) {
    EngineOptions options;
    options.max_num_seqs = slots;
    options.max_num_batched_tokens = rows;
    MakeEngine(FakeModelOptions{}, options);
  }
  void TearDown() override {
    if (model_ != nullptr) {
      EXPECT_EQ(model_->violation(), "");
    }
  }

  std::shared_ptr<EventStream> Submit(std::unique_ptr<Request> request) {
    absl::StatusOr<std::shared_ptr<EventStream>> stream = engine_->Submit(std::move(request));
    EXPECT_TRUE(stream.ok()) << stream.status();
    return stream.ok() ? *stream : nullptr;
  }
  // Runs steps until there is nothing to do.
  int64_t RunAll(int64_t most = 100000) {
    int64_t steps = 0;
    while (steps < most && engine_->RunStep()) ++steps;
    EXPECT_LT(steps, most) << "the engine does not come to rest";
    return steps;
  }
  // Runs steps and reads streams until all are done.
  std::vector<ReadStream> RunAndRead(const std::vector<std::shared_ptr<EventStream>>& streams) {
    std::vector<ReadStream> reads(streams.size());
    for (int64_t step = 0; step < 100000; ++step) {
      const bool any = engine_->RunStep();
      bool all_done = true;
      for (size_t idx = 0; idx < streams.size(); ++idx) {
        Drain(streams[idx].get(), &reads[idx]);
        all_done = all_done && reads[idx].done;
      }
      if (all_done) break;
      if (!any) {
        ADD_FAILURE() << "the engine rests with unfinished requests";
        break;
      }
    }
    return reads;
  }
  ReadStream RunAndRead(const std::shared_ptr<EventStream>& stream) {
    return RunAndRead(std::vector<std::shared_ptr<EventStream>>{stream})[0];
  }
  void ExpectAllSlotsFree() {
    RunAll();
    const EngineStatus status = engine_->GetStatus();
    EXPECT_EQ(status.slots_used, 0);
    EXPECT_EQ(status.slots_zeroing, 0);
    EXPECT_EQ(status.requests_running, 0);
    EXPECT_EQ(status.requests_queued, 0);
    EXPECT_EQ(status.tokens_queued, 0);
  }

  FakeClock clock_;
  std::unique_ptr<FakeModel> model_;
  std::unique_ptr<FakeVocabulary> vocabulary_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace statehouse::testing
