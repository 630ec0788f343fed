// What rounding the weights costs the shipped checkpoint, in nats per token of a conversation that it understands.
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/parallel/thread_pool.h"
#include "models/checkpoint.h"
#include "tests/models/sequence_runner.h"

namespace statehouse {
namespace {

using testing::SequenceRunner;

std::vector<ChatMessage> Conversation() {
  std::vector<ChatMessage> messages;
  const auto say = [&messages](const char* user, const char* assistant) {
    messages.push_back({"user", user});
    messages.push_back({"assistant", assistant});
  };
  say("Hi! My name is Petra.", "Hello, Petra!");
  say("I live in Lund.", "Okay: you live in Lund.");
  say("My cat is called Biscuit.", "Got it: your cat is called Biscuit.");
  say("The code for the shed is 4172.", "Noted: the code of the shed is 4172.");
  say("How are you?", "I am fine, thank you. And you?");
  say("Can you count from 3 to 9?", "3, 4, 5, 6, 7, 8, 9.");
  say("What is 12 plus 9?", "12 plus 9 is 21.");
  say("What is the code for the shed?", "The code of the shed is 4172.");
  say("Where do I live?", "You live in Lund.");
  say("What is my cat called?", "Your cat is called Biscuit.");
  say("What is my job?", "You did not tell me what your job is.");
  return messages;
}

double MeanNll(LoadOptions::DType dtype, kernels::ThreadPool* pool) {
  CheckpointOptions options;
  options.load.dtype = dtype;
  auto checkpoint = LoadCheckpoint(STATEHOUSE_SOURCE_DIR "/models/demo/checkpoint", options, pool);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  if (!checkpoint.ok()) return NAN;
  std::vector<int32_t> tokens;
  EXPECT_TRUE(checkpoint->chat_template->Render(Conversation(), false, *checkpoint->tokenizer, &tokens).ok());
  const int64_t num_tokens = static_cast<int64_t>(tokens.size());
  EXPECT_TRUE(checkpoint->model->Reserve(num_tokens, num_tokens).ok());
  SequenceRunner runner(checkpoint->model.get());
  const std::vector<float> logits = runner.Append(tokens, num_tokens);
  const int64_t vocab = checkpoint->config.vocab_size;
  double sum = 0;
  for (int64_t t = 0; t + 1 < num_tokens; ++t) {
    const float* row = logits.data() + t * vocab;
    double total = 0;
    for (int64_t id = 0; id < vocab; ++id) total += std::exp(static_cast<double>(row[id]) - row[tokens[t + 1]]);
    sum += std::log(total);
  }
  return sum / static_cast<double>(num_tokens - 1);
}

TEST(DemoCheckpoint, Int8Weights_CostAtMostOnePercentOfItsLoss) {
  kernels::ThreadPool pool(2);
  const double f32 = MeanNll(LoadOptions::DType::kF32, &pool);
  const double int8 = MeanNll(LoadOptions::DType::kInt8, &pool);
  RecordProperty("nll_f32", std::to_string(f32));
  RecordProperty("nll_int8", std::to_string(int8));
  EXPECT_LT(f32, 3.0) << "the checkpoint should understand this conversation";
  EXPECT_NEAR(int8, f32, 0.01 * f32);
  EXPECT_NE(int8, f32) << "nothing was rounded";
}

}  // namespace
}  // namespace statehouse
