#include "engine/scheduler.h"

#include <algorithm>

namespace statehouse {

Scheduler::Scheduler(const SchedulerLimits& limits, int64_t max_work) : limits_(limits) { order_.reserve(max_work); }

void Scheduler::Plan(std::span<const Work> work, std::span<int64_t> granted) {
  rows_left_ = limits_.max_rows;
  logits_left_ = limits_.max_prompt_logits;
  rows_given_ = 0;
  for (size_t idx = 0; idx < work.size(); ++idx) {
    const bool runs = work[idx].kind == Work::Kind::kDecode && rows_left_ > 0;
    granted[idx] = runs ? 1 : 0;
    rows_left_ -= granted[idx];
  }
  PlanRunningSwitchOvers(work, granted);
  for (size_t begin = 0; begin < work.size() && rows_left_ > 0;) {
    size_t end = begin;
    while (end < work.size() && work[end].priority == work[begin].priority) ++end;
    PlanLevel(work, granted, begin, end);
    begin = end;
  }
}

void Scheduler::PlanRunningSwitchOvers(std::span<const Work> work, std::span<int64_t> granted) {
  order_.clear();
  for (size_t idx = 0; idx < work.size(); ++idx) {
    if (work[idx].kind == Work::Kind::kSwitchOver && work[idx].decodes) order_.push_back(idx);
  }
  SortByTurn(work);
  for (const size_t idx : order_) granted[idx] += Turn(work[idx], 0);
}

void Scheduler::SortByTurn(std::span<const Work> work) {
  std::sort(order_.begin(), order_.end(), [work](size_t a, size_t b) {
    return work[a].last_served < work[b].last_served || (work[a].last_served == work[b].last_served && a < b);
  });
}

void Scheduler::PlanLevel(std::span<const Work> work, std::span<int64_t> granted, size_t begin, size_t end) {
  order_.clear();
  for (size_t idx = begin; idx < end; ++idx) {
    if (work[idx].kind != Work::Kind::kDecode) order_.push_back(idx);
  }
  SortByTurn(work);
  for (bool progress = true; progress && rows_left_ > 0;) {
    progress = false;
    for (const size_t idx : order_) {
      const int64_t turn = Turn(work[idx], granted[idx]);
      granted[idx] += turn;
      progress = progress || turn > 0;
    }
  }
}

int64_t Scheduler::Turn(const Work& work, int64_t already) {
  const int64_t wanted = work.available - already;
  if (wanted <= 0 || rows_left_ <= 0) return 0;
  int64_t turn = 0;
  int64_t cost = 0;
  if (work.kind == Work::Kind::kSwitchOver) {
    const int64_t unit = limits_.switch_unit_rows;
    turn = std::min({wanted, std::max<int64_t>(1, limits_.chunk / unit), rows_left_ / unit});
    if (turn == 0 && rows_given_ == 0) turn = 1;
    cost = std::min(rows_left_, turn * unit);
  } else {
    turn = std::min(wanted, limits_.chunk - (work.position + already) % limits_.chunk);
    if (work.wants_logits) turn = std::min(turn, logits_left_);
    if (turn > rows_left_) turn = rows_left_ > rows_given_ ? rows_left_ : 0;
    if (work.wants_logits) logits_left_ -= turn;
    cost = turn;
  }
  rows_left_ -= cost;
  rows_given_ += cost;
  return turn;
}

}  // namespace statehouse
