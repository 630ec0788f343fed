// Core: what a step computes.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/core.h"
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

bool HasSwitchOver(const kernels::RetentionLayout& layout) {
  return layout.has_state() && layout.shape().switch_over > 0;
}

SchedulerLimits LimitsOf(const Model& model, const EngineOptions& options) {
  SchedulerLimits limits;
  limits.max_rows = options.max_num_batched_tokens;
  limits.max_prompt_logits = kPromptLogitRows;
  limits.chunk = model.retention().shape().chunk;
  if (HasSwitchOver(model.retention())) {
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
  absl::Status status = buffers_.Reserve(options_.max_num_batched_tokens, num_slots, max_logit_rows, vocab_size);
  if (!status.ok()) return status;
  deps_.model->RegisterLogits(buffers_.all_logits());
  return deps_.model->Reserve(options_.max_num_batched_tokens, max_logit_rows);
}

int64_t Core::workspace_bytes() const {
  return deps_.model->workspace_bytes() + buffers_.bytes() + writer_.bytes() + counts_memory_.size();
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
  bool any = EndDue();
  any = slots_->ZeroSlice(kZeroBytesPerStep) > 0 || any;
  any = HandOutSlots() || any;
  any = CopySlices() || any;
  if (absl::Status status = slots_->status(); !status.ok() && !running_.empty()) {
    // Whatever holds a slot may be concerned.
    workers_.assign(active_.begin(), active_.end());
    std::fill_n(granted_.begin(), workers_.size(), 1);
    FailStep(status);
    return true;
  }
  CollectWork();
  const bool ran = RunWork();
  // After a step with work there is another one at once, which notifies when its rows are under way.
  if (!ran) NotifyListeners();
  PublishCounts();
  return any || ran || look_again_;
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

bool Core::NeedsSwitchOver(const Sequence& sequence) const {
  return HasSwitchOver(layout_) && sequence.position == layout_.shape().switch_over && !sequence.switched;
}

void Core::CollectWork() {
  work_.clear();
  workers_.clear();
  for (Generation* generation : running_) {
    generation->step_room = -1;
    generation->step_blocked = false;
  }
  for (Sequence* sequence : active_) {
    const Work work = WorkOf(*sequence);
    if (work.available == 0) continue;
    work_.push_back(work);
    workers_.push_back(sequence);
  }
  for (Generation* generation : running_) {
    if (generation->step_blocked && !generation->blocked) {
      generation->blocked_since = now_;
      generation->taken_when_blocked = generation->stream->taken();
      deps_.stats->slow_reader_pauses.fetch_add(1, std::memory_order_relaxed);
    }
    generation->blocked = generation->step_blocked;
  }
}

// Sets `available` to 0 where the sequence has nothing to do, or no room for its events.
Work Core::WorkOf(const Sequence& sequence) {
  Generation* const generation = sequence.generation;
  Work work;
  work.priority = generation->request->priority;
  work.position = sequence.position;
  work.last_served = sequence.last_served;
  work.available = 0;
  const bool is_source = sequence.phase == Sequence::Phase::kSource;
  const bool is_copied = sequence.phase == Sequence::Phase::kForking || sequence.phase == Sequence::Phase::kRestoring ||
                         sequence.phase == Sequence::Phase::kSaving;
  // All is copied, and the first tokens find no room.
  if (sequence.phase == Sequence::Phase::kRestoring && sequence.copied == SlotPool::kCopied) {
    generation->step_blocked = true;
  }
  if (is_copied || (is_source && generation->num_waiting < 2)) return work;
  if (NeedsSwitchOver(sequence)) {
    work.kind = Work::Kind::kSwitchOver;
    work.decodes = sequence.phase == Sequence::Phase::kDecoding;
    work.available = deps_.model->num_switch_units() - sequence.switch_units;
  } else if (sequence.phase == Sequence::Phase::kDecoding) {
    work.kind = Work::Kind::kDecode;
    work.available = TakeRoom(generation, 1) ? 1 : 0;
  } else if (sequence.phase == Sequence::Phase::kPrompt) {
    work.kind = Work::Kind::kPrompt;
    work.wants_logits = generation->wants_prompt_logprobs() && !generation->prompt_seen;
    work.available = PromptRows(sequence);
  }
  return work;
}

// Prompt rows that may run now: up to the switch-over, and as far as their events find room. The last row brings n
// first tokens.
int64_t Core::PromptRows(const Sequence& sequence) {
  Generation* const generation = sequence.generation;
  int64_t rows = generation->prompt_size() - sequence.position;
  const SnapshotOrder* const order = generation->next_order();
  if (order != nullptr && order->position != SnapshotOrder::kAtEnd) {
    rows = std::min(rows, order->position - sequence.position);
  }
  if (HasSwitchOver(layout_) && sequence.position < layout_.shape().switch_over) {
    rows = std::min(rows, layout_.shape().switch_over - sequence.position);
  }
  if (generation->prompt_seen) return rows;
  const bool has_last = sequence.position + rows == generation->prompt_size();
  const int64_t last_events = has_last ? generation->n() : 0;
  const int64_t plain_rows = rows - (has_last ? 1 : 0);  // one event each, or none
  const int64_t events_per_row = generation->wants_prompt_logprobs() ? 1 : 0;
  if (TakeRoom(generation, plain_rows * events_per_row + last_events)) return rows;
  const int64_t fitting = events_per_row == 0 ? plain_rows : std::min(plain_rows, generation->step_room);
  // The reader is slow if nothing at all can go on, not if this step is merely shorter than it could be.
  generation->step_blocked = fitting == 0;
  return fitting;
}

// Sets room for events aside in this step. If there is too little, the consumer's next take wakes the engine.
bool Core::TakeRoom(Generation* generation, int64_t events) {
  EventStream& stream = *generation->stream;
  if (generation->step_room < 0) generation->step_room = stream.room();
  if (generation->step_room >= events) {
    generation->step_room -= events;
    return true;
  }
  generation->step_blocked = true;
  look_again_ = stream.HasRoomOrWake(stream.room() + 1) || look_again_;
  return false;
}

bool Core::RunWork() {
  if (work_.empty()) return false;
  const absl::Time began = deps_.clock->Now();
  buffers_.Clear();
  decode_rows_ = prompt_rows_ = 0;
  const std::span<int64_t> granted = std::span<int64_t>(granted_).first(work_.size());
  scheduler_.Plan(work_, granted);
  for (size_t idx = 0; idx < work_.size(); ++idx) {
    if (granted[idx] == 0) continue;
    workers_[idx]->last_served = step_;
    if (work_[idx].kind == Work::Kind::kSwitchOver) {
      RunSwitchUnits(workers_[idx], granted[idx]);
    } else {
      AddRows(workers_[idx], granted[idx]);
    }
  }
  if (buffers_.num_rows() > 0) {
    absl::Status status = buffers_.Begin(deps_.model);
    // Readers are told of the step before while this one runs: waking them takes longer than anything else here.
    NotifyListeners();
    for (const LogitRow& row : buffers_.logit_rows()) row.sequence->generation->stream->ExpectPush();
    if (status.ok()) status = buffers_.End(deps_.model);
    now_ = deps_.clock->Now();
    if (!status.ok()) {
      FailStep(status);
      return true;
    }
    for (size_t idx = 0; idx < work_.size(); ++idx) {
      if (work_[idx].kind != Work::Kind::kSwitchOver) Advance(workers_[idx], granted[idx]);
    }
    const std::span<const LogitRow> rows = buffers_.logit_rows();
    for (size_t idx = 0; idx < rows.size(); ++idx) {
      HandleLogits(rows[idx], buffers_.logits(static_cast<int64_t>(idx)), buffers_.token(static_cast<int64_t>(idx)));
    }
    for (Sequence* sequence : workers_) SaveIfDue(sequence);
  }
  RecordStep(began);
  return true;
}

void Core::AddRows(Sequence* sequence, int64_t num_rows) {
  Generation* const generation = sequence->generation;
  slots_->NoteUse(sequence->slot, sequence->position + num_rows);
  float* const memory = slots_->memory(sequence->slot);
  if (sequence->phase == Sequence::Phase::kDecoding) {
    const LogitUse use = UseOfLogits(*generation, sequence->output, sequence->position + 1);
    buffers_.Add(sequence, memory, {&generation->outputs[sequence->output].token, 1}, 0, use);
    ++decode_rows_;
    return;
  }
  const std::span<const int32_t> prompt(generation->request->prompt);
  const bool ends_prompt = sequence->position + num_rows == generation->prompt_size();
  int64_t first_logit = num_rows;
  if (!generation->prompt_seen) {
    if (ends_prompt) first_logit = num_rows - 1;
    if (generation->wants_prompt_logprobs()) first_logit = 0;
  }
  // Several outputs are chosen from one row by the host.
  const bool one_choice = ends_prompt && !generation->prompt_seen && generation->n() == 1;
  buffers_.Add(sequence, memory, prompt.subspan(sequence->position, num_rows), first_logit,
               one_choice ? UseOfLogits(*generation, 0, generation->prompt_size()) : LogitUse{});
  prompt_rows_ += num_rows;
}

// The model chooses where it can and nothing edits the logits; the host needs them for everything else, and for what a
// snapshot at the end holds.
LogitUse Core::UseOfLogits(const Generation& generation, int32_t output, int64_t position) const {
  LogitUse use;
  use.chooses = deps_.model->chooses_tokens() && writer_.IsPlainChoice(generation, output);
  if (!use.chooses) return use;
  const SamplingPlan& plan = generation.sampling;
  use.copies = generation.request->num_logprobs >= 0 || generation.next_order() != nullptr;
  use.choice = {.temperature = plan.temperature,
                .top_k = plan.params.top_k,
                .top_p = plan.params.top_p,
                .min_p = plan.params.min_p,
                .seed = generation.seed,
                .output = output,
                .position = position};
  return use;
}

void Core::RunSwitchUnits(Sequence* sequence, int64_t num_units) {
  slots_->NoteFullUse(sequence->slot);
  float* const memory = slots_->memory(sequence->slot);
  for (int64_t unit = 0; unit < num_units; ++unit) deps_.model->SwitchOver(memory, sequence->switch_units++);
  if (sequence->switch_units < deps_.model->num_switch_units()) return;
  sequence->switched = true;
  deps_.stats->switch_overs.fetch_add(1, std::memory_order_relaxed);
}

// The model has read `num_rows` more tokens.
void Core::Advance(Sequence* sequence, int64_t num_rows) {
  const int64_t before = sequence->position;
  sequence->position += num_rows;
  Generation* const generation = sequence->generation;
  generation->furthest = std::max(generation->furthest, sequence->position);
  if (layout_.has_state() && sequence->position > layout_.shape().switch_over) {
    const int64_t folded = layout_.TailStart(sequence->position) - layout_.TailStart(before);
    deps_.stats->folds.fetch_add(folded / layout_.shape().chunk, std::memory_order_relaxed);
  }
  if (sequence->phase != Sequence::Phase::kPrompt) return;
  if (!generation->prompt_seen) {
    generation->prompt_tokens_done = sequence->position;
  } else if (sequence->position == generation->prompt_size()) {
    sequence->phase = Sequence::Phase::kSource;  // read again: the first tokens were chosen before
  }
}

void Core::HandleLogits(const LogitRow& row, std::span<const float> logits, int32_t token) {
  Sequence* const sequence = row.sequence;
  Generation* const generation = sequence->generation;
  if (sequence->phase == Sequence::Phase::kPrompt) {
    if (row.position + 1 < generation->prompt_size()) {
      writer_.WritePromptLogprob(generation, logits, row.position + 1);
    } else {
      FinishPrompt(sequence, logits, token);
    }
    return;
  }
  TokenCounts* const counts = &counts_[sequence->slot];
  if (writer_.WriteToken(generation, sequence->output, counts, logits, token, row.position + 1)) {
    if (generation->sampling.has_penalties) counts->AddOutput(generation->outputs[sequence->output].token);
    return;
  }
  if (generation->num_unfinished > 0) {
    ReleaseSequence(sequence);
    return;
  }
  KeepLastLogits(generation, logits);
  EndRunning(generation, Ending::Why::kFinished);
}

// The prompt is through: every output gets its first token from the same logits, and waits for a slot.
void Core::FinishPrompt(Sequence* sequence, std::span<const float> logits, int32_t token) {
  Generation* const generation = sequence->generation;
  sequence->phase = Sequence::Phase::kSource;
  generation->prompt_seen = true;
  generation->first_token = now_;
  writer_.WriteFirstTokens(generation, &counts_[sequence->slot], logits, token, sequence->position);
  if (const SnapshotOrder* order = generation->next_order();
      order != nullptr && order->position == generation->prompt_size()) {
    order->into->SetLogits(logits);
    BeginSaving(sequence, Sequence::Phase::kSource);
  }
  if (generation->num_unfinished > 0) return;
  KeepLastLogits(generation, logits);
  EndRunning(generation, Ending::Why::kFinished);
}

void Core::RecordStep(absl::Time began) {
  EngineStats& stats = *deps_.stats;
  stats.steps.fetch_add(1, std::memory_order_relaxed);
  stats.prefill_tokens.fetch_add(prompt_rows_, std::memory_order_relaxed);
  stats.decode_tokens.fetch_add(decode_rows_, std::memory_order_relaxed);
  if (prompt_rows_ + decode_rows_ > 0) stats.step_tokens.Observe(static_cast<double>(prompt_rows_ + decode_rows_));
  const double seconds = absl::ToDoubleSeconds(deps_.clock->Now() - began);
  if (prompt_rows_ == 0 && decode_rows_ > 0) {
    stats.step_decode_seconds.Observe(seconds);
  } else if (decode_rows_ == 0) {
    stats.step_prefill_seconds.Observe(seconds);
  } else {
    stats.step_mixed_seconds.Observe(seconds);
  }
}

}  // namespace statehouse
