// Each filter against a naive twin in double.
#include "engine/sampling/filters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <vector>

#include "engine/sampling/weight.h"

namespace statehouse {
namespace {

struct Naive {
  int32_t id;
  double value;
  double probability;
};

std::vector<Naive> Softmax(const std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& candidate : candidates) sum += std::exp(static_cast<double>(candidate.value));
  std::vector<Naive> result;
  for (const Candidate& candidate : candidates) {
    result.push_back({candidate.id, candidate.value, std::exp(static_cast<double>(candidate.value)) / sum});
  }
  return result;
}

std::set<int32_t> IdsOf(std::span<const Candidate> list) {
  std::set<int32_t> ids;
  for (const Candidate& candidate : list) ids.insert(candidate.id);
  EXPECT_EQ(ids.size(), list.size()) << "an id twice";
  return ids;
}

// The shortest prefix that reaches p. `*margin`: how clearly it does, since float weights may decide a draw otherwise.
std::set<int32_t> NaivePrefix(const std::vector<Naive>& sorted, double p, double* margin) {
  std::set<int32_t> ids;
  double sum = 0;
  *margin = 1;
  for (const Naive& entry : sorted) {
    if (!ids.empty() && sum >= p) break;
    ids.insert(entry.id);
    sum += entry.probability;
    *margin = std::min(*margin, std::abs(sum - p));
  }
  return ids;
}

class FiltersTest : public ::testing::Test {
 protected:
  // Sizes around the partial sort's steps; ties; sharp and flat.
  std::vector<Candidate> Draw() {
    static constexpr int64_t kSizes[] = {1, 2, 5, 255, 256, 257, 1500, 3000};
    const int64_t size = kSizes[random_() % 8];
    const float spread = std::vector<float>{0.0f, 1.0f, 6.0f, 25.0f}[random_() % 4];
    const uint32_t levels = random_() % 2 == 0 ? 20 : 1 << 20;
    std::vector<Candidate> candidates;
    for (int32_t id = 0; id < size; ++id) {
      candidates.push_back({-spread * static_cast<float>(random_() % levels) / static_cast<float>(levels), 3 * id});
    }
    if (random_() % 2 == 0) std::shuffle(candidates.begin(), candidates.end(), random_);
    return candidates;
  }
  static std::vector<Naive> BestFirst(const std::vector<Candidate>& candidates) {
    std::vector<Naive> sorted = Softmax(candidates);
    std::sort(sorted.begin(), sorted.end(),
              [](const Naive& a, const Naive& b) { return a.value > b.value || (a.value == b.value && a.id < b.id); });
    return sorted;
  }

  std::mt19937 random_{11};
  FilterScratch scratch_{3000};
};

TEST_F(FiltersTest, TopK_KeepsTheKBest) {
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<Candidate> candidates = Draw();
    const std::vector<Naive> sorted = BestFirst(candidates);
    const int64_t k = 1 + random_() % 400;
    std::set<int32_t> expected;
    for (size_t idx = 0; idx < sorted.size() && static_cast<int64_t>(idx) < k; ++idx) expected.insert(sorted[idx].id);
    CandidateList list(candidates);
    KeepTopK(k, &list);
    EXPECT_EQ(IdsOf(list), expected) << "k " << k << " of " << sorted.size();
  }
}

TEST_F(FiltersTest, TopP_KeepsTheFewestThatReachP) {
  int checked = 0;
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<Candidate> candidates = Draw();
    const double p = std::vector<double>{0.01, 0.3, 0.9, 0.95, 0.999}[random_() % 5];
    double margin = 0;
    const std::set<int32_t> expected = NaivePrefix(BestFirst(candidates), p, &margin);
    CandidateList list(candidates);
    KeepTopP(p, &scratch_, &list);
    if (margin < 1e-6) continue;
    ++checked;
    EXPECT_EQ(IdsOf(list), expected) << "p " << p;
  }
  EXPECT_GT(checked, 150);
}

TEST_F(FiltersTest, TypicalP_KeepsThoseNearestToTheEntropy) {
  int checked = 0;
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<Candidate> candidates = Draw();
    const double p = std::vector<double>{0.05, 0.3, 0.9, 0.99}[random_() % 4];
    std::vector<Naive> sorted = Softmax(candidates);
    double entropy = 0;
    for (const Naive& entry : sorted) entropy -= entry.probability * std::log(entry.probability);
    const auto distance = [entropy](const Naive& entry) { return std::abs(-std::log(entry.probability) - entropy); };
    std::sort(sorted.begin(), sorted.end(), [&](const Naive& a, const Naive& b) {
      const double difference = distance(a) - distance(b);
      return std::abs(difference) > 1e-12 ? difference < 0 : a.id < b.id;
    });
    double margin = 0;
    const std::set<int32_t> expected = NaivePrefix(sorted, p, &margin);
    // Two on opposite sides of the entropy, equally far to within rounding, may change places at the edge.
    const size_t edge = expected.size();
    const bool close_call = edge < sorted.size() && sorted[edge].value != sorted[edge - 1].value &&
                            std::abs(distance(sorted[edge]) - distance(sorted[edge - 1])) < 1e-5;
    CandidateList list(candidates);
    KeepTypicalP(p, &scratch_, &list);
    if (margin < 1e-6 || close_call) continue;
    ++checked;
    EXPECT_EQ(IdsOf(list), expected) << "p " << p;
  }
  EXPECT_GT(checked, 150);
}

TEST_F(FiltersTest, MinP_KeepsThoseWithThatShareOfTheBest) {
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<Candidate> candidates = Draw();
    const double min_p = std::vector<double>{0.001, 0.05, 0.3, 0.77, 1.0}[random_() % 5];
    std::set<int32_t> expected;
    bool close_call = false;
    const std::vector<Naive> sorted = BestFirst(candidates);
    for (const Naive& entry : sorted) {
      const double share = std::exp(entry.value - sorted[0].value);
      if (share >= min_p) expected.insert(entry.id);
      close_call = close_call || (share != 1.0 && std::abs(share / min_p - 1) < 1e-6);
    }
    CandidateList list(candidates);
    KeepMinP(min_p, &list);
    if (close_call) continue;
    EXPECT_EQ(IdsOf(list), expected) << "min_p " << min_p;
  }
}

TEST_F(FiltersTest, AnyOrderOfTheList_GivesTheSameSet) {
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<Candidate> first = Draw();
    std::vector<Candidate> second = first;
    std::shuffle(second.begin(), second.end(), random_);
    CandidateList list1(first);
    CandidateList list2(second);
    for (CandidateList* list : {&list1, &list2}) {
      KeepTopK(700, list);
      KeepTopP(0.97, &scratch_, list);
      KeepMinP(0.01, list);
      KeepTypicalP(0.8, &scratch_, list);
    }
    EXPECT_EQ(IdsOf(list1), IdsOf(list2));
    EXPECT_FALSE(list1.empty());
  }
}

TEST(WeightTest, IsTheExponentialToFloatPrecision) {
  for (float z = 0; z > -87; z -= 0.0137f) {
    EXPECT_NEAR(Weight(z) / std::exp(static_cast<double>(z)), 1, 2e-7) << z;
  }
  EXPECT_EQ(Weight(0), 1.0f);
  EXPECT_EQ(Weight(-88), 0.0f);
  EXPECT_EQ(Weight(-std::numeric_limits<float>::infinity()), 0.0f);
}

}  // namespace
}  // namespace statehouse
