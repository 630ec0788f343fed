#include "engine/sampling/gumbel.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace statehouse {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

TEST(Gumbel, Word_MapsToTheNoiseOfTheRecipe) {
  for (const uint32_t word : {0u, 1u, 12345u, 0x7fffffffu, 0x80000000u, 0xfffffffeu, 0xffffffffu}) {
    const double u = (word + 0.5) / 4294967296.0;
    EXPECT_NEAR(GumbelFromWord(word), -std::log(-std::log(u)), 1e-12) << word;
  }
  EXPECT_GT(GumbelFromWord(0), -3.14);
  EXPECT_LT(GumbelFromWord(0xffffffff), 22.88);
}

TEST(Gumbel, Noise_DependsOnSeedOutputPositionAndToken) {
  const double noise = GumbelNoise({1, 2, 3}, 4);
  EXPECT_EQ(noise, GumbelNoise({1, 2, 3}, 4));
  EXPECT_NE(noise, GumbelNoise({2, 2, 3}, 4));
  EXPECT_NE(noise, GumbelNoise({1 + (uint64_t{1} << 32), 2, 3}, 4));
  EXPECT_NE(noise, GumbelNoise({1, 3, 3}, 4));
  EXPECT_NE(noise, GumbelNoise({1, 2, 4}, 4));
  EXPECT_NE(noise, GumbelNoise({1, 2, 3 + (int64_t{1} << 32)}, 4));
  EXPECT_NE(noise, GumbelNoise({1, 2, 3}, 5));
}

// What a reader of docs/sampling.md would write.
int32_t NaiveArgmax(const ChoiceKey& key, const std::vector<float>& z) {
  double best = -std::numeric_limits<double>::infinity();
  int32_t best_id = -1;
  for (size_t id = 0; id < z.size(); ++id) {
    if (!(z[id] > kMinusInfinity)) continue;
    const double score = z[id] + GumbelNoise(key, static_cast<int32_t>(id));
    if (score > best) {
      best = score;
      best_id = static_cast<int32_t>(id);
    }
  }
  return best_id;
}

TEST(Gumbel, FastArgmax_EqualsTheNaiveOne) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 400; ++trial) {
    // Sharp, flat and very wide distributions, sizes that are not multiples of four, holes.
    const float spread = std::vector<float>{0.0f, 0.1f, 3.0f, 30.0f, 1000.0f}[trial % 5];
    std::vector<float> z(1 + random() % 300);
    for (float& value : z) value = random() % 8 == 0 ? kMinusInfinity : -spread * (random() % 1000) / 1000.0f;
    const ChoiceKey key{random(), static_cast<int32_t>(random() % 4), static_cast<int64_t>(random())};
    const int32_t expected = NaiveArgmax(key, z);
    EXPECT_EQ(ArgmaxWithNoise(key, std::span<const float>(z)), expected);
    std::vector<Candidate> candidates;
    for (size_t id = 0; id < z.size(); ++id) candidates.push_back({z[id], static_cast<int32_t>(id)});
    std::shuffle(candidates.begin(), candidates.end(), random);
    EXPECT_EQ(ArgmaxWithNoise(key, std::span<const Candidate>(candidates)), expected);
  }
}

TEST(Gumbel, NothingAllowed_IsMinusOne) {
  const std::vector<float> z(9, kMinusInfinity);
  EXPECT_EQ(ArgmaxWithNoise({}, std::span<const float>(z)), -1);
  EXPECT_EQ(ArgmaxWithNoise({}, std::span<const Candidate>()), -1);
}

// Pearson's statistic of observed counts against expected shares.
double ChiSquare(const std::vector<int64_t>& counts, const std::vector<double>& shares) {
  int64_t total = 0;
  for (const int64_t count : counts) total += count;
  double sum = 0;
  for (size_t idx = 0; idx < counts.size(); ++idx) {
    const double expected = shares[idx] * static_cast<double>(total);
    sum += (counts[idx] - expected) * (counts[idx] - expected) / expected;
  }
  return sum;
}

TEST(Gumbel, Choices_FollowTheSoftmax) {
  const std::vector<float> z = {0.0f, -0.5f, -1.0f, -2.0f, -3.0f, -0.1f, -4.0f, -6.0f, -1.5f};
  std::vector<double> shares;
  double sum = 0;
  for (const float value : z) sum += std::exp(value);
  for (const float value : z) shares.push_back(std::exp(value) / sum);
  // 8 degrees of freedom: 26.1 is exceeded once in 1000. The draws are fixed, so this passes always or never.
  constexpr double kCritical = 26.1;
  const auto draw = [&](auto key_of) {
    std::vector<int64_t> counts(z.size());
    for (int64_t idx = 0; idx < 200000; ++idx) ++counts[ArgmaxWithNoise(key_of(idx), std::span<const float>(z))];
    return ChiSquare(counts, shares);
  };
  EXPECT_LT(draw([](int64_t idx) { return ChoiceKey{7, 0, idx}; }), kCritical);
  EXPECT_LT(draw([](int64_t idx) { return ChoiceKey{static_cast<uint64_t>(idx), 0, 100}; }), kCritical);
  EXPECT_LT(draw([](int64_t idx) { return ChoiceKey{7, static_cast<int32_t>(idx), 100}; }), kCritical);
}

TEST(Gumbel, NeighbouringPositions_AreIndependent) {
  const std::vector<float> z(4, 0.0f);
  std::vector<int64_t> pairs(16);
  for (int64_t position = 0; position < 100000; position += 2) {
    const int32_t first = ArgmaxWithNoise({3, 0, position}, std::span<const float>(z));
    ++pairs[first * 4 + ArgmaxWithNoise({3, 0, position + 1}, std::span<const float>(z))];
  }
  EXPECT_LT(ChiSquare(pairs, std::vector<double>(16, 1.0 / 16)), 37.7);  // 15 degrees of freedom, once in 1000
}

}  // namespace
}  // namespace statehouse
