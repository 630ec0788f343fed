#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace statehouse {
namespace {

Work Decode() { return {}; }
Work Prompt(int64_t available, int64_t position = 0, int64_t last_served = 0, int32_t priority = 0) {
  Work work;
  work.kind = Work::Kind::kPrompt;
  work.available = available;
  work.position = position;
  work.last_served = last_served;
  work.priority = priority;
  return work;
}
Work Switch(int64_t units) {
  Work work;
  work.kind = Work::Kind::kSwitchOver;
  work.available = units;
  return work;
}

std::vector<int64_t> Plan(const SchedulerLimits& limits, const std::vector<Work>& work) {
  Scheduler scheduler(limits, static_cast<int64_t>(work.size()));
  std::vector<int64_t> granted(work.size());
  scheduler.Plan(work, granted);
  return granted;
}
using Rows = std::vector<int64_t>;

constexpr SchedulerLimits kLimits = {.max_rows = 512, .max_prompt_logits = 32, .chunk = 128, .switch_unit_rows = 50};

TEST(Scheduler, DecodeRows_ComeFirstWhateverTheirPriority) {
  std::vector<Work> work = {Prompt(10000, 0, 0, -5), Decode(), Decode()};
  work[2].priority = 7;
  EXPECT_EQ(Plan(kLimits, work), (Rows{384, 1, 1}));
}

TEST(Scheduler, StreamAtItsSwitchOver_GoesOnBesideBetterPrompts) {
  std::vector<Work> work = {Prompt(100000), Switch(60), Switch(60)};
  for (size_t idx : {1, 2}) {
    work[idx].priority = 1;
    work[idx].decodes = true;
  }
  EXPECT_EQ(Plan(kLimits, work),
            (Rows{256, 3, 2}));  // a turn is a chunk's worth: 2 units of 50 rows; then what is left
  work[1].decodes = false;       // that of a prompt waits for better ones
  EXPECT_EQ(Plan(kLimits, work), (Rows{384, 0, 2}));
}

TEST(Scheduler, LonePrompt_TakesWholeChunks) {
  EXPECT_EQ(Plan(kLimits, {Prompt(10000)}), (Rows{512}));
  EXPECT_EQ(Plan(kLimits, {Prompt(10000, 100)}), (Rows{28 + 3 * 128}));
  EXPECT_EQ(Plan(kLimits, {Prompt(300)}), (Rows{300}));
}

TEST(Scheduler, BudgetBelowAChunk_IsStillUsed) {
  SchedulerLimits limits = kLimits;
  limits.max_rows = 50;
  EXPECT_EQ(Plan(limits, {Prompt(10000)}), (Rows{50}));
  EXPECT_EQ(Plan(limits, {Prompt(10000, 0, 2), Prompt(10000, 0, 1)}), (Rows{0, 50}));
}

// With 120 rows and pieces that end with their chunk, a step of 8 rows would follow each of 120.
TEST(Scheduler, LonePromptWithAnyBudget_FillsMoreThanHalfOfEveryStep) {
  for (const int64_t max_rows : {50, 100, 120, 127, 129, 200, 504}) {
    SchedulerLimits limits = kLimits;
    limits.max_rows = max_rows;
    for (int64_t position = 0; position < 10000;) {
      const int64_t rows = Plan(limits, {Prompt(100000, position)})[0];
      ASSERT_GE(2 * rows, max_rows) << "at " << position;
      position += rows;
    }
  }
}

TEST(Scheduler, ShortPromptBehindALongOne_ComesInTheSameStep) {
  EXPECT_EQ(Plan(kLimits, {Prompt(100000), Prompt(60)}), (Rows{3 * 128, 60}));
  EXPECT_EQ(Plan(kLimits, {Prompt(100000), Prompt(100000)}), (Rows{256, 256}));
}

TEST(Scheduler, WhoWasServedLongestAgo_GoesFirst) {
  SchedulerLimits limits = kLimits;
  limits.max_rows = 128;
  EXPECT_EQ(Plan(limits, {Prompt(1000, 128, 9), Prompt(1000, 0, 8), Prompt(1000, 0, 9)}), (Rows{0, 128, 0}));
}

TEST(Scheduler, WorsePriority_GetsWhatIsLeft) {
  EXPECT_EQ(Plan(kLimits, {Prompt(10000, 0, 9, 0), Prompt(10000, 0, 1, 1)}), (Rows{512, 0}));
  EXPECT_EQ(Plan(kLimits, {Prompt(128, 0, 9, 0), Prompt(10000, 0, 1, 1)}), (Rows{128, 384}));
}

TEST(Scheduler, WantedLogits_AreBounded) {
  std::vector<Work> work = {Prompt(100), Prompt(100)};
  work[0].wants_logits = true;
  EXPECT_EQ(Plan(kLimits, work), (Rows{32, 100}));
  work[1].wants_logits = true;
  const Rows rows = Plan(kLimits, work);
  EXPECT_EQ(rows[0] + rows[1], 32);
}

TEST(Scheduler, SwitchOverUnits_CostRows) {
  EXPECT_EQ(Plan(kLimits, {Switch(100)}), (Rows{10}));                    // 512 / 50
  EXPECT_EQ(Plan(kLimits, {Switch(100), Prompt(1000)}), (Rows{5, 256}));  // 2 units, then a chunk, in turns
  EXPECT_EQ(Plan(kLimits, {Switch(1), Prompt(1000)}), (Rows{1, 384}));
  SchedulerLimits limits = kLimits;
  limits.switch_unit_rows = 5000;  // more than a step: one unit at a time, with nothing beside it
  EXPECT_EQ(Plan(limits, {Switch(100), Prompt(1000), Decode()}), (Rows{1, 0, 1}));
}

// What must hold of every plan, on random work.
TEST(Scheduler, RandomWork_KeepsTheRules) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 3000; ++trial) {
    SchedulerLimits limits;
    limits.max_rows = 1 + static_cast<int64_t>(random() % 300);
    limits.max_prompt_logits = 1 + static_cast<int64_t>(random() % 40);
    limits.chunk = 1 + static_cast<int64_t>(random() % 70);
    limits.switch_unit_rows = 1 + random() % 100;
    const int64_t count = 1 + random() % std::min<int64_t>(limits.max_rows, 12);
    std::vector<Work> work;
    for (int64_t idx = 0; idx < count; ++idx) {
      Work entry;
      entry.kind = static_cast<Work::Kind>(random() % 3);
      entry.priority = static_cast<int32_t>(idx / 4);
      entry.position = random() % 500;
      entry.last_served = random() % 5;
      entry.available = entry.kind == Work::Kind::kDecode ? 1 : 1 + random() % 400;
      entry.wants_logits = random() % 4 == 0;
      work.push_back(entry);
    }
    const Rows granted = Plan(limits, work);
    int64_t rows = 0;
    int64_t logits = 0;
    int64_t cost = 0;
    bool wants_more = false;
    for (int64_t idx = 0; idx < count; ++idx) {
      ASSERT_GE(granted[idx], 0);
      ASSERT_LE(granted[idx], work[idx].available);
      if (work[idx].kind == Work::Kind::kDecode) {
        ASSERT_EQ(granted[idx], 1) << "a decode row waits";
      }
      if (work[idx].kind == Work::Kind::kSwitchOver) {
        cost += granted[idx] * limits.switch_unit_rows;
      } else {
        rows += granted[idx];
      }
      if (work[idx].kind == Work::Kind::kPrompt && work[idx].wants_logits) logits += granted[idx];
      wants_more = wants_more || work[idx].kind != Work::Kind::kDecode;
    }
    ASSERT_LE(rows, limits.max_rows);
    ASSERT_LE(logits, limits.max_prompt_logits);
    // One unit may cost more than a step; otherwise switch-overs keep to the budget.
    if (cost > limits.switch_unit_rows) {
      ASSERT_LE(rows + cost, limits.max_rows);
    }
    int64_t beyond_decode = cost;
    for (int64_t idx = 0; idx < count; ++idx) beyond_decode += work[idx].kind == Work::Kind::kPrompt ? granted[idx] : 0;
    const int64_t decodes = rows + cost - beyond_decode;
    if (wants_more && decodes < limits.max_rows) {
      ASSERT_GT(beyond_decode, 0) << "a step without progress of prompts";
    }
  }
}

// Many prompts of one priority, over many steps: nobody waits longer than it takes to go round once.
TEST(Scheduler, OverManySteps_NoPromptStarves) {
  for (const int64_t max_rows : {7, 64, 200}) {
    SchedulerLimits limits{.max_rows = max_rows, .max_prompt_logits = 8, .chunk = 32};
    std::vector<Work> work;
    for (int idx = 0; idx < 6; ++idx) work.push_back(Prompt(1 << 20));
    Scheduler scheduler(limits, 6);
    Rows granted(6);
    for (int64_t step = 1; step <= 200; ++step) {
      scheduler.Plan(work, granted);
      for (int idx = 0; idx < 6; ++idx) {
        ASSERT_LE(step - work[idx].last_served, 7) << "prompt " << idx << " of " << max_rows;
        if (granted[idx] > 0) work[idx].last_served = step;
        work[idx].position += granted[idx];
      }
    }
    const auto [least, most] = std::minmax_element(
        work.begin(), work.end(), [](const Work& a, const Work& b) { return a.position < b.position; });
    EXPECT_LE(most->position - least->position, 2 * 32);
  }
}

}  // namespace
}  // namespace statehouse
