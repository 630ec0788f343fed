// Decides what the next step computes. Pure: numbers in, numbers out; it knows no request, slot or model.
//
// Rules, in this order:
// 1. Every decode row runs. (The step holds at least one row per slot, so decoding and prompts both go on.) A sequence
//    that decodes and has come to its switch-over gets one turn (rule 3) of it next, whatever its priority: its stream
//    runs, and must not wait for somebody's prompt.
// 2. What is left of the row budget goes to prompts and switch-overs, by priority: a worse priority gets what better
// ones leave.
// 3. Within a priority it goes round in pieces of one chunk, those first who were served longest ago, then in order of
// arrival.
//    So a long prompt takes what others leave, and a short one behind it waits for at most one round.
// 4. Pieces end at a multiple of the chunk, or where the prompt (or what may run of it now) ends. A piece that the
// budget
//    would cut short runs only if it is more than all that the step holds of prompts so far: an unaligned piece saves
//    nothing.
// 5. A switch-over unit costs its arithmetic in rows. Thread-safety: one thread at a time; Plan() does not allocate.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace statehouse {

// Prompt rows per step whose logits are wanted, beside one row per slot: each costs a vocabulary of floats.
inline constexpr int64_t kPromptLogitRows = 32;

struct SchedulerLimits {
  int64_t max_rows = 0;           // rows of one step
  int64_t max_prompt_logits = 0;  // prompt rows of one step whose logits are wanted
  int64_t chunk = 0;              // C
  int64_t switch_unit_rows = 1;   // cost of one switch-over unit, in rows
};

// One sequence that could do something in this step.
struct Work {
  enum class Kind : uint8_t { kDecode, kPrompt, kSwitchOver };
  Kind kind = Kind::kDecode;
  bool wants_logits = false;  // kPrompt: of every row
  int32_t priority = 0;       // lower first
  int64_t position = 0;       // kPrompt: of its next row
  int64_t available = 1;      // rows that may run now (kDecode: 1), or switch-over units left
  bool decodes = false;       // kSwitchOver: of a sequence that decodes
  int64_t last_served = 0;    // number of the step that last gave it something; 0: none yet
};

class Scheduler {
 public:
  // max_work: the most entries of one Plan().
  Scheduler(const SchedulerLimits& limits, int64_t max_work);

  // `work` is sorted by (priority, arrival). Sets granted[i] to the rows or units of work[i]; 0 where it must wait.
  void Plan(std::span<const Work> work, std::span<int64_t> granted);

 private:
  void PlanRunningSwitchOvers(std::span<const Work> work, std::span<int64_t> granted);
  void PlanLevel(std::span<const Work> work, std::span<int64_t> granted, size_t begin, size_t end);
  // Puts those first in order_ that were served longest ago.
  void SortByTurn(std::span<const Work> work);
  // What one more turn gives work `idx`; takes it from the budget.
  int64_t Turn(const Work& work, int64_t already);

  const SchedulerLimits limits_;
  std::vector<size_t> order_;  // scratch
  int64_t rows_left_ = 0;
  int64_t logits_left_ = 0;
  int64_t rows_given_ = 0;  // to prompts and switch-overs
};

}  // namespace statehouse
