// Tokens chosen on a GPU beside the host's: the same logits and parameters give the same token, whatever they are.
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

#include "engine/sampling/sampler.h"
#include "kernels/cuda/device.h"
#include "kernels/sampling/cuda/choose.h"

namespace statehouse {
namespace {

using kernels::CudaChoice;
using kernels::DeviceBuffer;

class CudaChoices : public ::testing::TestWithParam<int64_t> {  // vocabulary
 protected:
  void SetUp() override {
    if (kernels::CountDevices() == 0) GTEST_SKIP() << "no GPU: nothing was run";
  }

  // Sharp and flat, with many ties or none, and now and then what a broken model gives.
  std::vector<float> DrawLogits() {
    static constexpr float kSpreads[] = {0.0f, 0.5f, 2.0f, 8.0f, 60.0f};
    const float spread = kSpreads[random_() % 5];
    const bool is_coarse = random_() % 3 == 0;
    std::normal_distribution<float> normal(0, 1);
    std::vector<float> logits(GetParam());
    for (float& logit : logits) logit = is_coarse ? spread * (random_() % 7) : spread * normal(random_);
    static constexpr float kOdd[] = {-std::numeric_limits<float>::infinity(),
                                     std::numeric_limits<float>::quiet_NaN(),
                                     std::numeric_limits<float>::infinity(),
                                     3e38f,
                                     -3e38f,
                                     1e-42f};
    if (random_() % 6 == 0) {
      const uint32_t some = random_() % 20;
      for (uint32_t i = 0; i < some; ++i) logits[random_() % logits.size()] = kOdd[random_() % 6];
    }
    if (random_() % 200 == 0) std::fill(logits.begin(), logits.end(), kOdd[random_() % 2]);
    return logits;
  }

  SamplingParams DrawParams() {
    SamplingParams params;
    static constexpr double kTemperatures[] = {0, 1e-6, 0.1, 0.7, 1, 1.3, 100};
    params.temperature = kTemperatures[random_() % 7];
    if (random_() % 2 == 0) params.top_k = std::vector<int64_t>{1, 2, 50, 2000, GetParam()}[random_() % 5];
    if (random_() % 2 == 0) params.top_p = std::vector<double>{1e-9, 0.1, 0.5, 0.9, 0.95, 0.9999999}[random_() % 6];
    if (random_() % 3 == 0) params.min_p = std::vector<double>{1e-4, 0.05, 0.5, 1.0}[random_() % 4];
    return params;
  }

  std::mt19937_64 random_{23};
};

TEST_P(CudaChoices, AreTheHostsChoices) {
  const int64_t vocab = GetParam(), rows = 64;
  const int64_t rounds = vocab < 1000 ? 120 : vocab < 10000 ? 60 : vocab < 100000 ? 20 : 4;
  const kernels::DeviceProperties device = kernels::GetDeviceProperties(0).value();
  Sampler sampler(vocab);
  DeviceBuffer logits, choices, tokens;
  ASSERT_TRUE(logits.Allocate(rows * vocab * sizeof(float)).ok());
  ASSERT_TRUE(choices.Allocate(rows * sizeof(CudaChoice)).ok());
  ASSERT_TRUE(tokens.Allocate(rows * sizeof(int32_t)).ok());
  int64_t num_wrong = 0, num_none = 0;
  for (int64_t round = 0; round < rounds; ++round) {
    std::vector<CudaChoice> made;
    std::vector<int32_t> want;
    std::vector<float> all;
    for (int64_t row = 0; row < rows; ++row) {
      const std::vector<float> one = DrawLogits();
      const SamplingParams params = DrawParams();
      const SamplingPlan plan(params, vocab);
      ChoiceContext context;
      context.key = {random_(), static_cast<int32_t>(random_() % 5), static_cast<int64_t>(random_() >> 20)};
      want.push_back(sampler.Choose(plan, context, one));
      made.push_back({.row = static_cast<int32_t>(row),
                      .temperature = plan.temperature,
                      .top_k = params.top_k,
                      .top_p = params.top_p,
                      .min_p = params.min_p,
                      .seed = context.key.seed,
                      .position = context.key.position,
                      .output = context.key.output,
                      .unused = 0});
      all.insert(all.end(), one.begin(), one.end());
    }
    std::vector<int32_t> got(rows, -7);
    ASSERT_TRUE(logits.Upload(all.data(), all.size() * sizeof(float)).ok());
    ASSERT_TRUE(choices.Upload(made.data(), made.size() * sizeof(CudaChoice)).ok());
    ASSERT_TRUE(tokens.Upload(got.data(), got.size() * sizeof(int32_t)).ok());
    const absl::Status status = kernels::CudaChooseTokens({.logits = logits.as<float>(),
                                                           .vocab = vocab,
                                                           .choices = choices.as<CudaChoice>(),
                                                           .tokens = tokens.as<int32_t>(),
                                                           .num_choices = rows},
                                                          device.max_shared_bytes_per_block, nullptr);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    ASSERT_TRUE(tokens.Download(got.data(), got.size() * sizeof(int32_t)).ok());
    for (int64_t row = 0; row < rows; ++row) {
      num_none += want[row] < 0;
      if (got[row] == want[row] || ++num_wrong > 5) continue;
      const CudaChoice& choice = made[row];
      ADD_FAILURE() << "token " << got[row] << " instead of " << want[row] << ": temperature " << choice.temperature
                    << ", top_k " << choice.top_k << ", top_p " << choice.top_p << ", min_p " << choice.min_p;
    }
  }
  EXPECT_EQ(num_wrong, 0);
  if (vocab < 1000) {
    EXPECT_GT(num_none, 0) << "rows without a number were not tried";
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, CudaChoices, ::testing::Values(1, 3, 300, 999, 4099, 49152, 151936));

}  // namespace
}  // namespace statehouse
