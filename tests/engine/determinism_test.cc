// Same seed, same tokens and logprobs, bit for bit, whatever else runs: on a real model.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "kernels/parallel/thread_pool.h"
#include "models/model.h"
#include "tests/engine/engine_fixture.h"

namespace statehouse::testing {
namespace {

constexpr int32_t kVocab = 300;

std::unique_ptr<Model> LoadTiny(kernels::ThreadPool* pool, int64_t switch_over) {
  LoadOptions load;
  load.chunk = 16;
  load.switch_over = switch_over;
  absl::StatusOr<std::unique_ptr<Model>> model =
      LoadModel(STATEHOUSE_SOURCE_DIR "/tests/golden/models/powercoder-tiny", load, pool);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? std::move(*model) : nullptr;
}

// The request whose answer must not change: it crosses chunks and the switch-over both in its prompt and while
// decoding.
std::unique_ptr<Request> MakeProbe(int64_t prompt_size) {
  auto request = MakeRequest(MakePrompt(prompt_size, 5, kVocab), 60);
  request->sampling.seed = 1234567890123;
  request->sampling.temperature = 1.2;
  request->sampling.top_p = 0.95;
  request->sampling.repetition_penalty = 1.1;
  request->stop.ignore_eos = true;
  request->n = 2;
  request->num_logprobs = 3;
  request->num_prompt_logprobs = 1;
  return request;
}

std::unique_ptr<Request> MakeOther(std::mt19937* random) {
  auto request = MakeRequest(MakePrompt(1 + (*random)() % 200, (*random)(), kVocab), 1 + (*random)() % 80);
  request->sampling.seed = (*random)();
  request->priority = static_cast<int32_t>((*random)() % 5) - 2;
  request->n = 1 + (*random)() % 3;
  return request;
}

void ExpectSame(const Event& a, const Event& b) {
  EXPECT_EQ(a.token, b.token);
  EXPECT_EQ(a.position, b.position);
  EXPECT_EQ(std::memcmp(&a.logprob, &b.logprob, sizeof(float)), 0) << a.logprob << " " << b.logprob;
  ASSERT_EQ(a.num_top, b.num_top);
  for (int32_t idx = 0; idx < a.num_top; ++idx) {
    EXPECT_EQ(a.top[idx].token, b.top[idx].token);
    EXPECT_EQ(std::memcmp(&a.top[idx].logprob, &b.top[idx].logprob, sizeof(float)), 0);
  }
}

void ExpectSame(const ReadStream& a, const ReadStream& b) {
  ASSERT_EQ(a.prompt_logprobs.size(), b.prompt_logprobs.size());
  for (size_t idx = 0; idx < a.prompt_logprobs.size(); ++idx)
    ExpectSame(a.prompt_logprobs[idx], b.prompt_logprobs[idx]);
  ASSERT_EQ(a.outputs.size(), b.outputs.size());
  for (size_t output = 0; output < a.outputs.size(); ++output) {
    ASSERT_EQ(a.outputs[output].tokens, b.outputs[output].tokens) << "output " << output;
    for (size_t idx = 0; idx < a.outputs[output].events.size(); ++idx) {
      ExpectSame(a.outputs[output].events[idx], b.outputs[output].events[idx]);
    }
  }
}

ReadStream Alone(Model* model, const Vocabulary* vocabulary, int64_t prompt_size) {
  auto engine = Engine::Create(model, vocabulary, {.max_num_seqs = 2, .max_num_batched_tokens = 512}).value();
  auto stream = engine->Submit(MakeProbe(prompt_size)).value();
  ReadStream read;
  while (!read.done) {
    engine->RunStep();
    Drain(stream.get(), &read);
  }
  return read;
}

// Among 32 others, some of which are cancelled on the way; the probe comes somewhere in the middle.
ReadStream AmongOthers(Model* model, const Vocabulary* vocabulary, int64_t prompt_size, uint32_t seed, int64_t slots,
                       int64_t rows) {
  std::mt19937 random(seed);
  auto engine = Engine::Create(model, vocabulary, {.max_num_seqs = slots, .max_num_batched_tokens = rows}).value();
  std::vector<std::shared_ptr<EventStream>> others;
  std::shared_ptr<EventStream> probe;
  ReadStream read;
  for (int64_t step = 0; !read.done; ++step) {
    if (others.size() < 32) others.push_back(engine->Submit(MakeOther(&random)).value());
    if (others.size() == 12 && probe == nullptr) probe = engine->Submit(MakeProbe(prompt_size)).value();
    if (random() % 10 == 0) others[random() % others.size()]->Cancel();
    engine->RunStep();
    for (const auto& other : others) {
      for (Event event; other->TryNext(&event);) {
      }
    }
    if (probe != nullptr) Drain(probe.get(), &read);
    if (step > 100000) {
      ADD_FAILURE() << "the probe does not end";
      break;
    }
  }
  return read;
}

TEST(Determinism, RequestAmong32Others_GetsTheBitsItGetsAlone) {
  kernels::ThreadPool pool(2);
  const FakeVocabulary vocabulary = LetterVocabulary(kVocab);
  for (const int64_t switch_over : {int64_t{0}, int64_t{64}, int64_t{1024}}) {
    const std::unique_ptr<Model> model = LoadTiny(&pool, switch_over);
    ASSERT_NE(model, nullptr);
    for (const int64_t prompt_size : {30, 100}) {
      const ReadStream alone = Alone(model.get(), &vocabulary, prompt_size);
      ASSERT_EQ(alone.outputs[0].tokens.size(), 60u);
      EXPECT_NE(alone.outputs[0].tokens, alone.outputs[1].tokens);
      ExpectSame(AmongOthers(model.get(), &vocabulary, prompt_size, 1, /*slots=*/8, /*rows=*/64), alone);
      ExpectSame(AmongOthers(model.get(), &vocabulary, prompt_size, 2, /*slots=*/3, /*rows=*/7), alone);
    }
  }
}

TEST(Determinism, OneSlotOnly_GivesTheSameBits) {
  kernels::ThreadPool pool(1);
  const FakeVocabulary vocabulary = LetterVocabulary(kVocab);
  const std::unique_ptr<Model> model = LoadTiny(&pool, 64);
  ASSERT_NE(model, nullptr);
  const ReadStream alone = Alone(model.get(), &vocabulary, 100);
  ExpectSame(AmongOthers(model.get(), &vocabulary, 100, 3, /*slots=*/1, /*rows=*/20), alone);
}

}  // namespace
}  // namespace statehouse::testing
