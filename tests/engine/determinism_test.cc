// Same seed, same tokens and logprobs, bit for bit, whatever else runs: on a real model.
#include <gtest/gtest.h>

#include <random>

#include "tests/engine/tiny_model.h"

namespace statehouse::testing {
namespace {

std::unique_ptr<Request> MakeOther(std::mt19937* random) {
  auto request = MakeRequest(MakePrompt(1 + (*random)() % 200, (*random)(), kTinyVocab), 1 + (*random)() % 80);
  request->sampling.seed = (*random)();
  request->priority = static_cast<int32_t>((*random)() % 5) - 2;
  request->n = 1 + (*random)() % 3;
  return request;
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
  const FakeVocabulary vocabulary = LetterVocabulary(kTinyVocab);
  for (const int64_t switch_over : {int64_t{0}, int64_t{64}, int64_t{1024}}) {
    const std::unique_ptr<Model> model = LoadTiny(&pool, switch_over);
    ASSERT_NE(model, nullptr);
    for (const int64_t prompt_size : {30, 100}) {
      const ReadStream alone = Alone(model.get(), &vocabulary, prompt_size);
      ASSERT_EQ(alone.outputs[0].tokens.size(), 60u);
      EXPECT_NE(alone.outputs[0].tokens, alone.outputs[1].tokens);
      EXPECT_TRUE(SameBits(AmongOthers(model.get(), &vocabulary, prompt_size, 1, /*slots=*/8, /*rows=*/64), alone));
      EXPECT_TRUE(SameBits(AmongOthers(model.get(), &vocabulary, prompt_size, 2, /*slots=*/3, /*rows=*/7), alone));
    }
  }
}

TEST(Determinism, OneSlotOnly_GivesTheSameBits) {
  kernels::ThreadPool pool(1);
  const FakeVocabulary vocabulary = LetterVocabulary(kTinyVocab);
  const std::unique_ptr<Model> model = LoadTiny(&pool, 64);
  ASSERT_NE(model, nullptr);
  const ReadStream alone = Alone(model.get(), &vocabulary, 100);
  EXPECT_TRUE(SameBits(AmongOthers(model.get(), &vocabulary, 100, 3, /*slots=*/1, /*rows=*/20), alone));
}

}  // namespace
}  // namespace statehouse::testing
