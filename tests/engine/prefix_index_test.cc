// What the prefix index finds, why it does not find more, and that what it keeps saves more than keeping the newest.
#include "engine/state/prefix_index.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <random>

namespace statehouse::testing {
namespace {

using Tokens = std::vector<int32_t>;
constexpr int64_t kRegionFloats = 1 << 16;

// Snapshots whose regions, as in life, are larger than their tokens.
class PrefixIndexTest : public ::testing::Test {
 protected:
  // In state form from the start, with chunks of `chunk`: it can be taken back to where its last row's chunk begins.
  std::shared_ptr<const Snapshot> SnapshotOf(const Tokens& tokens, int64_t position, bool with_logits = true,
                                             int64_t chunk = 1) {
    const kernels::RetentionShape retention{
        .heads_q = 1, .heads_kv = 1, .head_dim = 4, .chunk = chunk, .switch_over = 0};
    SlotShape shape{*kernels::RetentionLayout::Make(retention), 1};
    kernels::AlignedBuffer regions;
    EXPECT_TRUE(regions.Allocate(kRegionFloats * sizeof(float)));
    Tokens part(tokens.begin(), tokens.begin() + position);
    std::vector<float> logits(with_logits ? 8 : 0);
    return std::make_shared<const Snapshot>(shape, SnapshotPoint{.position = position, .used_floats = kRegionFloats},
                                            std::move(regions), std::move(logits), std::move(part));
  }
  static Tokens Range(int32_t first, int32_t count) {
    Tokens tokens(count);
    for (int32_t idx = 0; idx < count; ++idx) tokens[idx] = first + idx;
    return tokens;
  }
  static Tokens Join(Tokens a, const Tokens& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }
};

TEST_F(PrefixIndexTest, DeepestSnapshot_IsFoundAndTheRestExplained) {
  PrefixIndex index({.budget_bytes = 64 << 20});
  const Tokens prompt = Range(0, 100);
  EXPECT_EQ(index.Find("", prompt).reason, MissReason::kNothing);
  index.Insert("", SnapshotOf(prompt, 40));
  index.Insert("", SnapshotOf(prompt, 70));

  PrefixMatch match = index.Find("", prompt);
  EXPECT_EQ(match.snapshot->position(), 70);
  EXPECT_EQ(match.matched, 70);
  EXPECT_EQ(match.reason, MissReason::kDiverged);

  match = index.Find("", Join(Range(0, 60), Range(500, 10)));
  EXPECT_EQ(match.snapshot->position(), 40);
  EXPECT_EQ(match.matched, 60);
  EXPECT_EQ(match.reason, MissReason::kNoSnapshot);

  match = index.Find("", Range(0, 30));
  EXPECT_EQ(match.snapshot, nullptr);
  EXPECT_EQ(match.matched, 30);
  EXPECT_EQ(match.reason, MissReason::kNoSnapshot);

  EXPECT_EQ(index.Find("", Range(1, 30)).reason, MissReason::kNothing);
}

TEST_F(PrefixIndexTest, WholePrompt_NeedsLogits) {
  PrefixIndex index({.budget_bytes = 64 << 20});
  const Tokens prompt = Range(0, 50);
  index.Insert("", SnapshotOf(prompt, 20, false));
  index.Insert("", SnapshotOf(prompt, 50, false));
  EXPECT_EQ(index.Find("", prompt).snapshot->position(), 49) << "its last row is taken back and computed again";
  index.Insert("", SnapshotOf(prompt, 50, true));
  EXPECT_EQ(index.Find("", prompt).snapshot->position(), 50);
  EXPECT_EQ(index.Find("", prompt).reason, MissReason::kNone);
  EXPECT_EQ(index.totals().snapshots, 2);
}

TEST_F(PrefixIndexTest, AnotherSalt_FindsNothing) {
  PrefixIndex index({.budget_bytes = 64 << 20});
  index.Insert("ann", SnapshotOf(Range(0, 50), 50));
  EXPECT_EQ(index.Find("bob", Range(0, 60)).snapshot, nullptr);
  EXPECT_EQ(index.Find("bob", Range(0, 60)).matched, 0);
  EXPECT_NE(index.Find("ann", Range(0, 60)).snapshot, nullptr);
}

TEST_F(PrefixIndexTest, PlaceWherePromptsPart_IsPlannedOnTheSecondSight) {
  PrefixIndex index({.budget_bytes = 64 << 20});
  const Tokens shared = Range(0, 80);
  using Positions = std::vector<int64_t>;
  EXPECT_EQ(index.Plan("", Join(shared, Range(1000, 20)), 0), (Positions{100}));
  EXPECT_EQ(index.Plan("", Join(shared, Range(2000, 20)), 0), (Positions{80, 100}));
  EXPECT_EQ(index.Plan("", Join(shared, Range(3000, 20)), 80), (Positions{100})) << "it is cached by then";
}

TEST_F(PrefixIndexTest, Evicted_IsSaid_AndTheBudgetHolds) {
  const auto one = SnapshotOf(Range(0, 50), 50);
  PrefixIndex index({.budget_bytes = 3 * one->bytes(), .efficiency_weight = 0});
  for (int32_t first = 0; first < 500; first += 100) {
    index.Insert("", SnapshotOf(Range(first, 50), 50));
    EXPECT_LE(index.totals().bytes, 3 * one->bytes());
  }
  EXPECT_EQ(index.totals().snapshots, 3);
  EXPECT_EQ(index.totals().evictions, 2);
  const PrefixMatch match = index.Find("", Range(0, 60));
  EXPECT_EQ(match.snapshot, nullptr);
  EXPECT_EQ(match.matched, 50);
  EXPECT_EQ(match.reason, MissReason::kEvicted);
}

TEST_F(PrefixIndexTest, TierBelow_HasItsOwnBudgetAndWhatLeavesItIsCounted) {
  const Tokens first = Range(0, 10);
  const int64_t one = SnapshotOf(first, 10)->bytes();
  int64_t next_key = 0;
  PrefixIndex index({.budget_bytes = one, .lower_budget_bytes = 3 * one, .spill = [&next_key](const auto&) {
                       return "p" + std::to_string(next_key++);
                     }});
  for (int32_t idx = 0; idx < 40; ++idx) {
    const Tokens tokens = Range(1000 * idx, 10);
    index.Plan("", tokens, 0);
    index.Insert("", SnapshotOf(tokens, 10));
    EXPECT_LE(index.totals().spilled_bytes, 3 * one);
    EXPECT_LE(index.totals().bytes, one);
  }
  const PrefixIndex::Totals totals = index.totals();
  EXPECT_EQ(totals.spilled, 3);
  EXPECT_EQ(totals.evictions, 40 - 3 - 1);
  EXPECT_EQ(index.TakeAbandoned().size(), 36u) << "their files are to be removed";
  EXPECT_EQ(index.Find("", first).reason, MissReason::kEvicted);
  EXPECT_FALSE(index.Find("", Range(38000, 10)).lower.empty()) << "the newest are there";
}

TEST_F(PrefixIndexTest, RememberedTokens_StayBelowTheirBound) {
  PrefixIndex index({.budget_bytes = 64 << 20, .max_tokens = 10000});
  index.Insert("", SnapshotOf(Range(0, 500), 500));
  for (int32_t round = 0; round < 200; ++round) {
    index.Plan("", Join(Range(0, 300), Range(100000 + 1000 * round, 400)), 0);
    ASSERT_LE(index.totals().tokens, 10000);
  }
  EXPECT_EQ(index.Find("", Range(0, 600)).snapshot->position(), 500) << "a path with a snapshot was forgotten";
}

TEST_F(PrefixIndexTest, PromptThatPartsInsideTheLastChunk_StartsFromTheSnapshotTakenBack) {
  PrefixIndex index({.budget_bytes = 64 << 20});
  const Tokens prompt = Range(0, 60);
  index.Insert("", SnapshotOf(prompt, 60, true, 16));  // rows 48 … 59 can be forgotten
  for (const int64_t same : {48, 50, 59}) {
    const PrefixMatch match = index.Find("", Join(Range(0, static_cast<int32_t>(same)), Range(500, 10)));
    ASSERT_NE(match.snapshot, nullptr) << same;
    EXPECT_EQ(match.snapshot->position(), same);
    EXPECT_EQ(match.snapshot->tokens().size(), static_cast<size_t>(same));
    EXPECT_EQ(match.reason, MissReason::kDiverged);
  }
  EXPECT_EQ(index.Find("", Join(Range(0, 47), Range(500, 10))).snapshot, nullptr);
  EXPECT_EQ(index.Find("", Range(0, 55)).snapshot->position(), 54) << "the last token gives the logits";
  EXPECT_EQ(index.Find("", Range(0, 55)).reason, MissReason::kNoSnapshot);
}

TEST_F(PrefixIndexTest, ManySaltsWithoutSnapshots_AreForgotten) {
  PrefixIndex index({.budget_bytes = 64 << 20, .max_tokens = 5000});
  index.Insert("kept", SnapshotOf(Range(0, 50), 50));
  for (int round = 0; round < 1000; ++round) {
    index.Plan(std::to_string(round), Range(round, 1), 0);
    ASSERT_LE(index.totals().tokens, 5000) << round;
  }
  EXPECT_NE(index.Find("kept", Range(0, 60)).snapshot, nullptr);
  EXPECT_EQ(index.Find("0", Range(0, 1)).reason, MissReason::kNothing);
}

// Against a plain list: the longest stored beginning, also of a snapshot that has to be taken back.
TEST_F(PrefixIndexTest, RandomPrompts_FindWhatAListFinds) {
  for (const int64_t chunk : {1, 4}) {
    std::mt19937 random(7);
    PrefixIndex index({.budget_bytes = int64_t{1} << 40});
    std::vector<std::shared_ptr<const Snapshot>> list;
    for (int round = 0; round < 3000; ++round) {
      Tokens prompt(1 + random() % 12);
      for (int32_t& token : prompt) token = static_cast<int32_t>(random() % 2);
      if (random() % 4 == 0) {
        const auto snapshot = SnapshotOf(prompt, 1 + random() % prompt.size(), random() % 2 == 0, chunk);
        index.Insert("", snapshot);
        list.push_back(snapshot);
        continue;
      }
      int64_t expected = 0;
      const int64_t without_last = static_cast<int64_t>(prompt.size()) - 1;
      for (const auto& snapshot : list) {
        const auto tokens = snapshot->tokens();
        const int64_t same =
            std::mismatch(tokens.begin(), tokens.end(), prompt.begin(), prompt.end()).first - tokens.begin();
        const bool is_whole = same == snapshot->position() && (same <= without_last || !snapshot->logits().empty());
        const int64_t back = std::min(same, without_last);
        expected = std::max(expected, is_whole ? same : back >= snapshot->exact_from() ? back : 0);
      }
      const PrefixMatch match = index.Find("", prompt);
      ASSERT_EQ(match.snapshot == nullptr ? 0 : match.snapshot->position(), expected) << "round " << round;
    }
  }
}

// Tokens that did not have to be computed, in a workload served through an index.
class WorkloadTest : public PrefixIndexTest {
 protected:
  struct Served {
    int64_t tokens = 0;
    int64_t saved = 0;
  };
  void Serve(PrefixIndex* index, const Tokens& prompt, const Tokens& answer, Served* served) {
    const PrefixMatch match = index->Find("", prompt);
    const int64_t cached = match.snapshot == nullptr ? 0 : match.snapshot->position();
    served->tokens += static_cast<int64_t>(prompt.size());
    served->saved += cached;
    for (const int64_t position : index->Plan("", prompt, cached)) index->Insert("", SnapshotOf(prompt, position));
    const Tokens all = Join(prompt, answer);
    index->Insert("", SnapshotOf(all, static_cast<int64_t>(all.size()) - 1));
  }
  static Tokens Random(std::mt19937* random, int64_t count) {
    Tokens tokens(count);
    for (int32_t& token : tokens) token = static_cast<int32_t>((*random)() % 30000);
    return tokens;
  }
  // Many users of a few long system prompts, popularity falling as 1 / rank.
  Served SharedPrefixes(PrefixIndex* index) {
    std::mt19937 random(1);
    std::vector<Tokens> systems;
    std::vector<double> popularity;
    for (int rank = 1; rank <= 24; ++rank) {
      systems.push_back(Random(&random, 200 + random() % 4000));
      popularity.push_back(1.0 / rank);
    }
    std::discrete_distribution<size_t> pick(popularity.begin(), popularity.end());
    Served served;
    for (int request = 0; request < 1200; ++request) {
      Serve(index, Join(systems[pick(random)], Random(&random, 20 + random() % 200)), Random(&random, 60), &served);
    }
    return served;
  }
  // Conversations that come back turn by turn, some soon and some late.
  Served MultiTurn(PrefixIndex* index) {
    std::mt19937 random(2);
    const Tokens system = Random(&random, 600);
    std::vector<Tokens> talks(60, system);
    Served served;
    for (int request = 0; request < 1200; ++request) {
      Tokens& talk = talks[std::min(random() % talks.size(), random() % talks.size())];
      if (talk.size() > 12000) talk = system;
      talk = Join(talk, Random(&random, 20 + random() % 400));
      const Tokens answer = Random(&random, 20 + random() % 200);
      Serve(index, talk, answer, &served);
      talk = Join(talk, answer);
    }
    return served;
  }
};

TEST_F(WorkloadTest, EfficiencyAndRecency_SaveMoreTokensThanRecencyAloneAtEqualBytes) {
  // A state costs the same at any length; tokens are small beside it.
  const int64_t state_bytes = SnapshotOf(Range(0, 1), 1)->bytes();
  for (const int64_t states : {16, 48}) {
    PrefixIndexOptions options{.budget_bytes = states * (state_bytes + 4 * 6000)};
    PrefixIndexOptions lru = options;
    lru.efficiency_weight = 0;
    for (const bool shared : {true, false}) {
      PrefixIndex ours(options), newest(lru);
      const Served with = shared ? SharedPrefixes(&ours) : MultiTurn(&ours);
      const Served without = shared ? SharedPrefixes(&newest) : MultiTurn(&newest);
      std::printf("%-14s room for about %2lld states: %5.1f %% of %lld prompt tokens saved, LRU %5.1f %%\n",
                  shared ? "shared prefix" : "multi-turn", static_cast<long long>(states),
                  100.0 * static_cast<double>(with.saved) / static_cast<double>(with.tokens),
                  static_cast<long long>(with.tokens),
                  100.0 * static_cast<double>(without.saved) / static_cast<double>(without.tokens));
      EXPECT_GT(with.saved, without.saved) << (shared ? "shared prefix" : "multi-turn");
    }
  }
}

}  // namespace
}  // namespace statehouse::testing
