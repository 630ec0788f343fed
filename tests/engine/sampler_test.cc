#include "engine/sampling/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "engine/sampling/logprobs.h"

namespace statehouse {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t Choose(const SamplingParams& params, const std::vector<float>& logits, ChoiceContext context = {}) {
  const int64_t vocab_size = static_cast<int64_t>(logits.size());
  Sampler sampler(vocab_size);
  return sampler.Choose(SamplingPlan(params, vocab_size), context, logits);
}

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

// Which tokens come up in many draws.
std::set<int32_t> Support(const SamplingParams& params, const std::vector<float>& logits, int draws = 2000) {
  const int64_t vocab_size = static_cast<int64_t>(logits.size());
  Sampler sampler(vocab_size);
  const SamplingPlan plan(params, vocab_size);
  std::set<int32_t> support;
  for (int position = 0; position < draws; ++position) {
    ChoiceContext context;
    context.key = {9, 0, position};
    support.insert(sampler.Choose(plan, context, logits));
  }
  return support;
}

TEST(Sampler, GreedyTie_TakesTheLowestId) {
  EXPECT_EQ(Choose(Greedy(), {1, 5, 5, 2}), 1);
  EXPECT_EQ(Choose(Greedy(), {0, 0, 0}), 0);
  SamplingParams edited = Greedy();
  edited.logit_bias = {{3, 3.0f}};
  EXPECT_EQ(Choose(edited, {1, 5, 5, 2}), 1);
}

TEST(Sampler, TinyTemperature_IsGreedy) {
  for (const double temperature : {1e-300, 1e-40, 1e-30, 1e-10}) {
    SamplingParams params;
    params.temperature = temperature;
    EXPECT_EQ(Support(params, {1, 5.0001f, 5, 2}, 50), (std::set<int32_t>{1})) << temperature;
  }
}

TEST(Sampler, Temperature_DividesLogits) {
  // At temperature 2 the ratio of e^2 between neighbours becomes e.
  SamplingParams params;
  params.temperature = 2;
  Sampler sampler(2);
  const SamplingPlan plan(params, 2);
  const std::vector<float> logits = {2, 0};
  int first = 0;
  constexpr int kDraws = 100000;
  for (int position = 0; position < kDraws; ++position) {
    ChoiceContext context;
    context.key = {1, 0, position};
    first += sampler.Choose(plan, context, logits) == 0;
  }
  EXPECT_NEAR(first / static_cast<double>(kDraws), 1 / (1 + std::exp(-1.0)), 0.005);
}

TEST(Sampler, BiasAllowedAndBanned_DecideWhatCanCome) {
  const std::vector<float> logits = {0, 0, 0, 0, 0};
  SamplingParams params;
  params.allowed_token_ids = {1, 3, 3};
  EXPECT_EQ(Support(params, logits), (std::set<int32_t>{1, 3}));
  params.banned_token_ids = {3};
  EXPECT_EQ(Support(params, logits), (std::set<int32_t>{1}));
  SamplingParams biased;
  biased.logit_bias = {{2, 100.0f}};
  EXPECT_EQ(Support(biased, logits), (std::set<int32_t>{2}));
  // A bias does not bring back what is not allowed.
  biased.banned_token_ids = {2};
  EXPECT_EQ(Support(biased, logits), (std::set<int32_t>{0, 1, 3, 4}));
}

TEST(Sampler, ForbiddenEndTokens_AreNotChosenWhileAnythingElseIsLeft) {
  const std::vector<int32_t> end_tokens = {1, 2};
  ChoiceContext context;
  context.forbidden = end_tokens;
  EXPECT_EQ(Choose(Greedy(), {1, 9, 8, 2}, context), 3);
  SamplingParams params = Greedy();
  params.allowed_token_ids = {1};
  EXPECT_EQ(Choose(params, {1, 9, 8, 2}, context), -1);
}

TEST(Sampler, NothingLeft_IsMinusOneOnEveryPath) {
  const std::vector<float> logits(5, kMinusInfinity);
  EXPECT_EQ(Choose(Greedy(), logits), -1);
  EXPECT_EQ(Choose({}, logits), -1);
  SamplingParams filtered;
  filtered.top_p = 0.5;
  EXPECT_EQ(Choose(filtered, logits), -1);
}

TEST(Sampler, NanLogits_AreNeverChosen) {
  EXPECT_EQ(Choose(Greedy(), {kNan, 1, kNan, 0}), 1);
  EXPECT_EQ(Choose(Greedy(), {kNan, kNan}), -1);
  for (const double top_p : {1.0, 0.99}) {
    SamplingParams params;
    params.top_p = top_p;
    EXPECT_EQ(Support(params, {kNan, 1, kNan, 0, kNan}, 500), (std::set<int32_t>{1, 3})) << top_p;
  }
}

class OnlyEven final : public LogitsMask {
 public:
  void Apply(std::span<const int32_t> output, std::span<float> logits) override {
    seen.assign(output.begin(), output.end());
    for (size_t id = 1; id < logits.size(); id += 2) logits[id] = kMinusInfinity;
  }
  std::vector<int32_t> seen;
};

TEST(Sampler, Mask_SeesTheOutputAndForbids) {
  auto mask = std::make_shared<OnlyEven>();
  SamplingParams params;
  params.mask = mask;
  EXPECT_EQ(Support(params, {0, 0, 0, 0, 0}), (std::set<int32_t>{0, 2, 4}));
  const std::vector<int32_t> output = {4, 2};
  ChoiceContext context;
  context.output = output;
  Choose(params, {0, 0, 0}, context);
  EXPECT_EQ(mask->seen, output);
}

TEST(Sampler, Penalties_FollowTheirFormulas) {
  // Greedy choices give away the order of edited logits; compared with a naive twin on random counts.
  std::mt19937 random(3);
  for (int trial = 0; trial < 300; ++trial) {
    constexpr int kVocab = 12;
    std::vector<uint32_t> memory(kVocab);
    TokenCounts counts{std::span<uint32_t>(memory)};
    std::map<int32_t, int> generated;
    std::set<int32_t> seen;
    for (int idx = 0; idx < 6; ++idx) {
      const int32_t token = static_cast<int32_t>(random() % kVocab);
      seen.insert(token);
      if (idx % 2 == 0) {
        counts.AddPrompt({&token, 1});
      } else {
        counts.AddOutput(token);
        ++generated[token];
      }
    }
    SamplingParams params = Greedy();
    params.repetition_penalty = trial % 2 == 0 ? 1.0 : 1.7;
    params.presence_penalty = trial % 3 == 0 ? 0.0 : 1.25;
    params.frequency_penalty = trial % 5 == 0 ? 0.0 : -0.75;
    std::vector<float> logits(kVocab);
    for (float& logit : logits) logit = static_cast<float>(random() % 1000) / 100 - 5;
    int32_t best = 0;
    std::vector<double> expected(kVocab);
    for (int32_t id = 0; id < kVocab; ++id) {
      double& logit = expected[id] = logits[id];
      if (seen.contains(id)) logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
      if (generated[id] > 0) logit -= params.presence_penalty + params.frequency_penalty * generated[id];
      if (logit > expected[best] + 1e-6) best = id;
    }
    ChoiceContext context;
    context.counts = &counts;
    EXPECT_EQ(Choose(params, logits, context), best);
  }
}

TEST(Sampler, FiltersOneAfterTheOther_SeeOnlyWhatIsLeft) {
  // Probabilities 0.4, 0.3, 0.2, 0.1: top-k 3 leaves 4/9, 3/9, 2/9, of which top-p 0.7 takes two.
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
  SamplingParams params;
  params.top_p = 0.75;
  EXPECT_EQ(Support(params, logits), (std::set<int32_t>{0, 1, 2}));
  params.top_k = 3;
  EXPECT_EQ(Support(params, logits), (std::set<int32_t>{0, 1}));
  params.min_p = 0.8;
  EXPECT_EQ(Support(params, logits), (std::set<int32_t>{0}));
}

TEST(Sampler, SameKeySameLogits_SameToken) {
  std::vector<float> logits(1000);
  for (size_t id = 0; id < logits.size(); ++id) logits[id] = std::sin(static_cast<float>(id));
  SamplingParams params;
  params.top_p = 0.9;
  params.top_k = 100;
  Sampler used(1000);
  const SamplingPlan plan(params, 1000);
  for (int position = 0; position < 50; ++position) {
    ChoiceContext context;
    context.key = {4, 1, position};
    EXPECT_EQ(used.Choose(plan, context, logits), Sampler(1000).Choose(plan, context, logits));
  }
}

TEST(Sampler, PreparedOnce_DrawsWhatEachChoiceAloneWould) {
  std::vector<float> logits(1000);
  for (size_t id = 0; id < logits.size(); ++id) logits[id] = 3 * std::sin(static_cast<float>(id));
  SamplingParams plain, filtered, edited;
  filtered.top_p = 0.8;
  filtered.typical_p = 0.9;
  edited.banned_token_ids = {2, 8};
  edited.logit_bias = {{14, 5.0f}};
  for (const SamplingParams& params : {Greedy(), plain, filtered, edited}) {
    const SamplingPlan plan(params, 1000);
    Sampler prepared(1000);
    prepared.Prepare(plan, {}, logits);
    for (int output = 0; output < 100; ++output) {
      ChoiceContext context;
      context.key = {4, output, 7};
      ASSERT_EQ(prepared.Draw(plan, context.key), Sampler(1000).Choose(plan, context, logits)) << "output " << output;
    }
  }
}

TEST(Logprobs, AreTheLogSoftmax) {
  std::mt19937 random(8);
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<float> logits(1 + random() % 500);
    for (float& logit : logits) logit = static_cast<float>(random() % 64) / 4 + (trial % 2 == 0 ? 1e4f : -300.0f);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - logits[0]);
    const double expected = logits[0] + std::log(sum);
    const double log_sum_exp = LogSumExp(logits);
    EXPECT_NEAR(log_sum_exp, expected, 1e-6);
    std::vector<TokenLogprob> top(20);
    const int32_t count = TopLogprobs(logits, log_sum_exp, top);
    std::vector<int32_t> ids(logits.size());
    for (size_t id = 0; id < ids.size(); ++id) ids[id] = static_cast<int32_t>(id);
    std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    ASSERT_EQ(count, std::min<int64_t>(20, static_cast<int64_t>(ids.size())));
    for (int32_t idx = 0; idx < count; ++idx) {
      EXPECT_EQ(top[idx].token, ids[idx]);
      EXPECT_EQ(top[idx].logprob, LogprobOf(logits[ids[idx]], log_sum_exp));
    }
  }
}

}  // namespace
}  // namespace statehouse
