// What holds of every forward pass: no allocation, and bits that depend on a sequence's own tokens alone.
#include <cmath>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/model.h"
#include "tests/models/allocation_count.h"
#include "tests/models/checkpoint_builder.h"
#include "tests/models/sequence_runner.h"

namespace statehouse {
namespace {

using testing::AllocationCount;
using testing::SequenceRunner;
using testing::TempDir;
using testing::WriteFile;

constexpr int64_t kChunk = 16;
constexpr int64_t kVocab = 96;

nlohmann::json SmallConfig(const std::string& family) {
  const bool powercoder = family == "powercoder";
  return {{"architectures", {powercoder ? "PowerCoderForCausalLM" : "BrumbyForCausalLM"}},
          {"model_type", family},
          {"hidden_size", 64},
          {"head_dim", 16},
          {"intermediate_size", 112},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"vocab_size", kVocab},
          {"bos_token_id", 0},
          {"eos_token_id", 0}};
}

std::unique_ptr<Model> DummyModel(const std::string& family, LoadOptions::DType dtype, kernels::ThreadPool* pool,
                                  int64_t switch_over = kernels::kSwitchOverAuto) {
  TempDir dir;
  WriteFile(dir / "config.json", SmallConfig(family).dump());
  LoadOptions options;
  options.dummy = true;
  options.dtype = dtype;
  options.chunk = kChunk;
  options.switch_over = switch_over;
  auto model = LoadModel(dir.path(), options, pool);
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return nullptr;
  EXPECT_TRUE((*model)->Reserve(256, 256).ok());
  return *std::move(model);
}

std::vector<int32_t> RandomTokens(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % kVocab);
  return tokens;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct Kind {
  const char* family;
  LoadOptions::DType dtype;
  const char* name;
};

class Forward : public ::testing::TestWithParam<Kind> {};

INSTANTIATE_TEST_SUITE_P(Families, Forward,
                         ::testing::Values(Kind{"powercoder", LoadOptions::DType::kF32, "powercoder_f32"},
                                           Kind{"powercoder", LoadOptions::DType::kInt8, "powercoder_int8"},
                                           Kind{"brumby", LoadOptions::DType::kF32, "brumby_f32"},
                                           Kind{"brumby", LoadOptions::DType::kBF16, "brumby_bf16"}),
                         [](const auto& info) { return info.param.name; });

TEST_P(Forward, OneTwoAndFiveThreads_GiveTheSameBits) {
  const std::vector<int32_t> tokens = RandomTokens(150, 1);
  std::vector<float> one;
  for (const int threads : {1, 2, 5}) {
    kernels::ThreadPool pool(threads);
    const auto model = DummyModel(GetParam().family, GetParam().dtype, &pool, 2 * kChunk);
    ASSERT_NE(model, nullptr);
    const std::vector<float> logits = SequenceRunner(model.get()).Append(tokens, 64);
    if (one.empty()) one = logits;
    EXPECT_TRUE(SameBits(one, logits)) << threads << " threads";
  }
}

// Five sequences advance side by side in random pieces; each gives the bits that it gives alone.
TEST_P(Forward, MixedBatches_GiveEachSequenceItsOwnBits) {
  kernels::ThreadPool pool(2);
  const auto model = DummyModel(GetParam().family, GetParam().dtype, &pool, 2 * kChunk);
  ASSERT_NE(model, nullptr);
  const int64_t lengths[] = {1, 31, 33, 77, 140};
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> alone;
  std::vector<std::vector<float>> mixed(std::size(lengths));
  std::deque<SequenceRunner> runners;
  for (const int64_t length : lengths) {
    tokens.push_back(RandomTokens(length, static_cast<uint32_t>(length)));
    alone.push_back(SequenceRunner(model.get()).Append(tokens.back(), 200));
    runners.emplace_back(model.get());
  }
  std::mt19937 random(7);
  std::vector<float> logits(256 * kVocab);
  while (true) {
    std::vector<int32_t> step_tokens;
    std::vector<StepSequence> sequences;
    std::vector<int32_t> logit_rows;
    std::vector<size_t> owners;
    for (size_t i = 0; i < runners.size(); ++i) {
      const int64_t left = lengths[i] - runners[i].position();
      if (left == 0 || random() % 3 == 0) continue;  // a sequence may sit a step out
      const int64_t wanted = random() % 2 == 0 ? 1 : 1 + static_cast<int64_t>(random() % 40);
      const int64_t rows = runners[i].PrepareRows(std::min(left, wanted));
      sequences.push_back({runners[i].memory(), runners[i].position(), static_cast<int32_t>(step_tokens.size()),
                           static_cast<int32_t>(rows)});
      const auto first = tokens[i].begin() + runners[i].position();
      for (int64_t row = 0; row < rows; ++row) {
        logit_rows.push_back(static_cast<int32_t>(step_tokens.size()));
        step_tokens.push_back(first[row]);
        owners.push_back(i);
      }
      runners[i].Advance(rows);
    }
    if (sequences.empty()) {
      bool done = true;
      for (size_t i = 0; i < runners.size(); ++i) done = done && runners[i].position() == lengths[i];
      if (done) break;
      continue;
    }
    ASSERT_TRUE(model->Forward({step_tokens, sequences, logit_rows}, logits).ok());
    for (size_t row = 0; row < owners.size(); ++row) {
      mixed[owners[row]].insert(mixed[owners[row]].end(), logits.begin() + row * kVocab,
                                logits.begin() + (row + 1) * kVocab);
    }
  }
  for (size_t i = 0; i < runners.size(); ++i) EXPECT_TRUE(SameBits(alone[i], mixed[i])) << "sequence of " << lengths[i];
}

TEST_P(Forward, WantedRowsOnly_AreWrittenAndEqualThoseOfAllRows) {
  kernels::ThreadPool pool(2);
  const auto model = DummyModel(GetParam().family, GetParam().dtype, &pool, 0);
  ASSERT_NE(model, nullptr);
  const std::vector<int32_t> tokens = RandomTokens(20, 3);
  const std::vector<float> all = SequenceRunner(model.get()).Append(tokens, 20);
  SequenceRunner runner(model.get());
  const StepSequence sequence = {runner.memory(), 0, 0, 20};
  const std::vector<int32_t> wanted = {3, 19};
  std::vector<float> logits(3 * kVocab, -1.0f);
  ASSERT_TRUE(model->Forward({tokens, {&sequence, 1}, wanted}, logits).ok());
  EXPECT_EQ(std::memcmp(logits.data(), all.data() + 3 * kVocab, kVocab * sizeof(float)), 0);
  EXPECT_EQ(std::memcmp(logits.data() + kVocab, all.data() + 19 * kVocab, kVocab * sizeof(float)), 0);
  for (int64_t i = 2 * kVocab; i < 3 * kVocab; ++i) ASSERT_EQ(logits[i], -1.0f) << "written past the wanted rows";
}

TEST_P(Forward, PrefillSwitchOverFoldAndDecode_AllocateNothing) {
  kernels::ThreadPool pool(2);
  const auto model = DummyModel(GetParam().family, GetParam().dtype, &pool, 4 * kChunk);
  ASSERT_NE(model, nullptr);
  const std::vector<int32_t> tokens = RandomTokens(256, 9);
  SequenceRunner first(model.get());
  SequenceRunner second(model.get());
  std::vector<float> logits(2 * kVocab);
  StepSequence sequences[2];
  const int32_t logit_rows[2] = {0, 1};
  const int64_t before = AllocationCount();
  for (int step = 0; step < 200; ++step) {
    const int64_t prefill = step % 4 == 0 ? first.PrepareRows(5) : first.PrepareRows(1);
    second.PrepareRows(1);
    sequences[0] = {first.memory(), first.position(), 0, static_cast<int32_t>(prefill)};
    sequences[1] = {second.memory(), second.position(), static_cast<int32_t>(prefill), 1};
    const absl::Status status =
        model->Forward({{tokens.data() + step, static_cast<size_t>(prefill) + 1}, sequences, logit_rows}, logits);
    if (!status.ok()) FAIL() << status;
    first.Advance(prefill);
    second.Advance(1);
  }
  EXPECT_EQ(AllocationCount() - before, 0);
  EXPECT_GT(first.position(), 6 * kChunk);
  EXPECT_GT(second.position(), 6 * kChunk);
}

// Degree 4 with small heads has both forms; they are the same function of the tokens.
TEST(ForwardSteps, Degree4StateAndTailAlone_Agree) {
  kernels::ThreadPool pool(2);
  const std::vector<int32_t> tokens = RandomTokens(120, 4);
  TempDir dir;
  nlohmann::json config = SmallConfig("brumby");
  config["p"] = 4;
  WriteFile(dir / "config.json", config.dump());
  std::vector<std::vector<float>> logits;
  for (const int64_t switch_over : {int64_t{0}, kChunk, kernels::kNeverSwitch}) {
    LoadOptions options;
    options.dummy = true;
    options.dtype = LoadOptions::DType::kF32;
    options.chunk = kChunk;
    options.switch_over = switch_over;
    options.max_tail_tokens = 128;
    auto model = LoadModel(dir.path(), options, &pool);
    ASSERT_TRUE(model.ok()) << model.status();
    ASSERT_TRUE((*model)->Reserve(128, 128).ok());
    logits.push_back(SequenceRunner(model->get()).Append(tokens, 128));
    EXPECT_TRUE(SameBits(logits.back(), SequenceRunner(model->get()).Append(tokens, 1))) << "token by token differs";
  }
  const std::vector<float>& tail_alone = logits.back();
  for (const std::vector<float>& state : logits) {
    double difference = 0;
    double reference = 0;
    for (size_t i = 0; i < state.size(); ++i) {
      difference += (state[i] - tail_alone[i]) * (state[i] - tail_alone[i]);
      reference += tail_alone[i] * tail_alone[i];
    }
    EXPECT_LE(std::sqrt(difference / reference), 1e-4);
  }
}

TEST(ForwardSteps, LargerThanReserved_AreAnErrorAndNotACrash) {
  kernels::ThreadPool pool(1);
  const auto model = DummyModel("powercoder", LoadOptions::DType::kF32, &pool);
  ASSERT_NE(model, nullptr);
  SequenceRunner runner(model.get());
  const std::vector<int32_t> tokens = RandomTokens(257, 1);
  const StepSequence sequence = {runner.memory(), 0, 0, 257};
  std::vector<float> logits;
  EXPECT_EQ(model->Forward({tokens, {&sequence, 1}, {}}, logits).code(), absl::StatusCode::kInternal);
}

TEST(ForwardSteps, ReserveTwice_GrowsAndNeverShrinks) {
  kernels::ThreadPool pool(1);
  const auto model = DummyModel("brumby", LoadOptions::DType::kF32, &pool);
  ASSERT_NE(model, nullptr);
  const int64_t before = model->workspace_bytes();
  ASSERT_TRUE(model->Reserve(512, 8).ok());
  const int64_t grown = model->workspace_bytes();
  EXPECT_GT(grown, before);
  ASSERT_TRUE(model->Reserve(1, 1).ok());
  EXPECT_EQ(model->workspace_bytes(), grown);
  const std::vector<int32_t> tokens = RandomTokens(250, 1);
  EXPECT_EQ(SequenceRunner(model.get()).Append(tokens, 250).size(), static_cast<size_t>(250 * kVocab));
}

}  // namespace
}  // namespace statehouse
