// Core: its parts, and the order of a step.
#include "engine/core.h"

#include <algorithm>
#include <cmath>

#include "kernels/power_retention/power_retention.h"

namespace statehouse {
namespace {

// Released slots are zeroed this fast while sequences run; an idle engine goes on at once.
constexpr int64_t kZeroBytesPerStep = 64 << 20;

// Arithmetic of one row: 2 per weight, and what retention adds (docs/retention.md, "What one sequence costs").
double RowFlops(const Model& model) {
  const kernels::RetentionLayout& layout = model.retention();
  const kernels::RetentionShape& shape = layout.shape();
  const double state = layout.has_state() ? 2.0 * layout.expanded() * (shape.head_dim + 1) : 0.0;
  const double tail = 2.0 * shape.chunk * shape.head_dim * shape.heads_q;
  return 2.0 * model.num_parameters() + model.config().num_layers * (state * (shape.heads_q + shape.heads_kv) + tail);
}

SchedulerLimits LimitsOf(const Model& model, const EngineOptions& options) {
  SchedulerLimits limits;
  limits.max_rows = options.max_num_batched_tokens;
  limits.max_prompt_logits = kPromptLogitRows;
  limits.chunk = model.retention().shape().chunk;
  if (model.retention().has_switch_over()) {
    const double rows = kernels::SwitchOverFlops(model.retention()) / std::max(1.0, RowFlops(model));
    limits.switch_unit_rows = std::max<int64_t>(1, std::llround(rows));
  }
  return limits;
}

}  // namespace

Core::Core(const Dependencies& dependencies, const EngineOptions& options, std::unique_ptr<SlotPool> slots)
    : deps_(dependencies),
      options_(options),
      layout_(dependencies.model->retention()),
      slots_(std::move(slots)),
      scheduler_(LimitsOf(*dependencies.model, options), options.max_num_seqs),
      writer_(dependencies.model->config().vocab_size, dependencies.vocabulary, dependencies.stats) {}

absl::StatusOr<std::unique_ptr<Core>> Core::Create(const Dependencies& dependencies, const EngineOptions& options) {
  const Model& model = *dependencies.model;
  absl::StatusOr<std::unique_ptr<SlotPool>> slots =
      SlotPool::Create({model.retention(), model.config().num_layers}, options.max_num_seqs, dependencies.model);
  if (!slots.ok()) return slots.status();
  std::unique_ptr<Core> core(new Core(dependencies, options, std::move(*slots)));
  if (absl::Status status = core->Reserve(); !status.ok()) return status;
  return core;
}

Core::~Core() {
  if (is_ahead_) (void)buffers_[1 - current_].End(deps_.model);
  deps_.model->RegisterLogits({});
}

absl::Status Core::Reserve() {
  const int64_t num_slots = slots_->num_slots();
  const int64_t vocab_size = deps_.model->config().vocab_size;
  const int64_t max_logit_rows = num_slots + kPromptLogitRows;
  sequences_.resize(num_slots);
  active_.reserve(num_slots);
  running_.reserve(num_slots);
  work_.reserve(num_slots);
  workers_.reserve(num_slots);
  granted_.resize(num_slots);
  if (!counts_memory_.Allocate(num_slots * vocab_size * static_cast<int64_t>(sizeof(uint32_t)))) {
    return absl::ResourceExhaustedError("penalty counts: the host has too little memory; lower --max-num-seqs");
  }
  for (int64_t slot = 0; slot < num_slots; ++slot) {
    uint32_t* const counts = counts_memory_.as<uint32_t>() + slot * vocab_size;
    counts_.emplace_back(std::span<uint32_t>(counts, static_cast<size_t>(vocab_size)));
  }
  absl::Status status = buffers_[0].Reserve(options_.max_num_batched_tokens, num_slots, max_logit_rows, vocab_size);
  if (!status.ok()) return status;
  // Only steps that copy no logits are queued ahead.
  if (status = buffers_[1].Reserve(num_slots, num_slots, num_slots, /*vocab_size=*/0); !status.ok()) return status;
  deps_.model->RegisterLogits(buffers_[0].all_logits());
  return deps_.model->Reserve(options_.max_num_batched_tokens, max_logit_rows);
}

int64_t Core::workspace_bytes() const {
  return deps_.model->workspace_bytes() + buffers_[0].bytes() + buffers_[1].bytes() + writer_.bytes() +
         counts_memory_.size();
}

Core::SlotCounts Core::slot_counts() const {
  return {num_used_.load(std::memory_order_relaxed), num_zeroing_.load(std::memory_order_relaxed)};
}

void Core::PublishCounts() {
  num_used_.store(slots_->num_used(), std::memory_order_relaxed);
  num_zeroing_.store(slots_->num_zeroing(), std::memory_order_relaxed);
}

bool Core::Step() {
  now_ = deps_.clock->Now();
  ++step_;
  look_again_ = false;
  // Readers are told of the step before while the next one runs: waking them takes longer than anything else here.
  // Unless it runs already, or something else comes first that takes long.
  if (is_ahead_ || TakesLong()) NotifyListeners();
  bool any = EndDue();
  any = slots_->ZeroSlice(kZeroBytesPerStep) > 0 || any;
  any = HandOutSlots() || any;
  copied_ = false;
  if (!CopiesBesideSteps()) copied_ = CopySlices();
  if (SlotsFailed()) return true;
  const bool ran = RunWork();
  PublishCounts();
  return any || copied_ || ran || look_again_;
}

bool Core::SlotsFailed() {
  absl::Status status = slots_->status();
  if (status.ok()) status = logits_status_;
  if (status.ok() || running_.empty()) return false;
  // Whatever holds a slot may be concerned.
  workers_.assign(active_.begin(), active_.end());
  std::fill_n(granted_.begin(), workers_.size(), 1);
  FailStep(status);
  return true;
}

// Does this step zero, copy or switch over, before its rows are under way?
bool Core::TakesLong() const {
  const bool copies_before = !CopiesBesideSteps();
  return slots_->num_zeroing() > 0 || std::ranges::any_of(active_, [&](const Sequence* sequence) {
           const bool copies = sequence->phase == Sequence::Phase::kForking ||
                               sequence->phase == Sequence::Phase::kRestoring ||
                               sequence->phase == Sequence::Phase::kSaving;
           return (copies && copies_before) || NeedsSwitchOver(*sequence);
         });
}

void Core::NotifyListeners() {
  for (Generation* generation : running_) generation->stream->NotifyListener();
}

absl::Time Core::NextEvent() const {
  absl::Time next = deps_.roster->earliest_deadline();
  for (const Generation* generation : running_) {
    next = std::min(next, generation->request->deadline);
    if (generation->blocked) next = std::min(next, generation->blocked_since + options_.slow_reader_timeout);
  }
  return next;
}

void Core::RecordStep() {
  EngineStats& stats = *deps_.stats;
  const absl::Time now = deps_.clock->Now();
  stats.steps.fetch_add(1, std::memory_order_relaxed);
  stats.prefill_tokens.fetch_add(prompt_rows_, std::memory_order_relaxed);
  stats.decode_tokens.fetch_add(decode_rows_, std::memory_order_relaxed);
  if (prompt_rows_ + decode_rows_ > 0) stats.step_tokens.Observe(static_cast<double>(prompt_rows_ + decode_rows_));
  const double seconds = absl::ToDoubleSeconds(now - step_began_);
  if (prompt_rows_ == 0 && decode_rows_ > 0) {
    stats.step_decode_seconds.Observe(seconds);
  } else if (decode_rows_ == 0) {
    stats.step_prefill_seconds.Observe(seconds);
  } else {
    stats.step_mixed_seconds.Observe(seconds);
  }
  step_began_ = now;  // of a step that is queued
}

}  // namespace statehouse
