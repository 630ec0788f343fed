// Core: what a step computes.
#include <algorithm>

#include "engine/core.h"

namespace statehouse {

bool Core::NeedsSwitchOver(const Sequence& sequence) const {
  return layout_.has_switch_over() && sequence.position == layout_.shape().switch_over && !sequence.switched;
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
  if (layout_.has_switch_over() && sequence.position < layout_.shape().switch_over) {
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
  absl::Status status;
  const bool was_ahead = is_ahead_;
  if (was_ahead) {
    TakeUpAhead();
  } else {
    CollectWork();
    if (!work_.empty()) status = BeginStep();
  }
  NotifyListeners();
  const bool is_under_way = status.ok() && (was_ahead || (!work_.empty() && buffers_[0].num_rows() > 0));
  if (is_under_way) status = RunAhead();
  if (status.ok() && CopiesBesideSteps()) copied_ = CopySlices();
  if (work_.empty() && !was_ahead) return SlotsFailed();
  StepBuffers& step = buffers_[current_];
  if (step.num_rows() > 0) {
    for (const LogitRow& row : step.logit_rows()) {
      if (row.is_wanted()) row.sequence->generation->stream->ExpectPush();
    }
    if (is_under_way) {
      const absl::Status ended = step.End(deps_.model);  // also if the next one could not be queued
      if (status.ok()) status = ended;
    }
    now_ = deps_.clock->Now();
    if (!status.ok()) {
      FailStep(status);
      return true;
    }
    if (SlotsFailed()) return true;
    for (size_t idx = 0; idx < work_.size(); ++idx) {
      if (work_[idx].kind != Work::Kind::kSwitchOver) Advance(workers_[idx], granted_[idx]);
    }
    for (size_t idx = 0; idx < step.logit_rows().size(); ++idx) {
      const LogitRow& row = step.logit_rows()[idx];
      const int64_t at = static_cast<int64_t>(idx);
      if (row.is_wanted()) HandleResult(row, {step.logits(at), step.token(at), at});
    }
    if (SlotsFailed()) return true;
    for (Sequence* sequence : workers_) SaveIfDue(sequence);
  }
  RecordStep();
  return true;
}

// Plans a step of work_, runs what it changes at once, and begins its rows if there are any.
absl::Status Core::BeginStep() {
  step_began_ = deps_.clock->Now();
  current_ = 0;
  StepBuffers& step = buffers_[current_];
  step.Clear();
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
  return step.num_rows() > 0 ? step.Begin(deps_.model) : absl::OkStatus();
}

void Core::AddRows(Sequence* sequence, int64_t num_rows) {
  Generation* const generation = sequence->generation;
  slots_->NoteUse(sequence->slot, sequence->position + num_rows);
  float* const memory = slots_->memory(sequence->slot);
  if (sequence->phase == Sequence::Phase::kDecoding) {
    const LogitUse use = UseOfLogits(*generation, sequence->output, sequence->position + 1);
    buffers_[current_].Add(sequence, memory, {&generation->outputs[sequence->output].token, 1}, 0, use);
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
  buffers_[current_].Add(sequence, memory, prompt.subspan(sequence->position, num_rows), first_logit,
                         one_choice ? UseOfLogits(*generation, 0, generation->prompt_size()) : LogitUse{});
  prompt_rows_ += num_rows;
}

// The model chooses where it can and nothing edits the logits; the host needs them for everything else, for a snapshot
// here, and, but for the last row alone, for one at the end.
LogitUse Core::UseOfLogits(const Generation& generation, int32_t output, int64_t position) const {
  LogitUse use;
  use.chooses = deps_.model->chooses_tokens() && writer_.IsPlainChoice(generation, output);
  if (!use.chooses) return use;
  const SamplingPlan& plan = generation.sampling;
  const SnapshotOrder* const order = generation.next_order();
  const bool saves_here = order != nullptr && order->position != SnapshotOrder::kAtEnd;
  use.copies = generation.request->num_logprobs >= 0 || saves_here;
  use.keeps = order != nullptr && !use.copies;
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

void Core::HandleResult(const LogitRow& row, const RowResult& result) {
  Sequence* const sequence = row.sequence;
  Generation* const generation = sequence->generation;
  if (sequence->phase == Sequence::Phase::kPrompt) {
    if (row.position + 1 < generation->prompt_size()) {
      writer_.WritePromptLogprob(generation, result.logits, row.position + 1);
    } else {
      FinishPrompt(sequence, result);
    }
    return;
  }
  TokenCounts* const counts = &counts_[sequence->slot];
  if (writer_.WriteToken(generation, sequence->output, counts, result.logits, result.token, row.position + 1)) {
    if (generation->sampling.has_penalties) counts->AddOutput(generation->outputs[sequence->output].token);
    return;
  }
  if (generation->num_unfinished > 0) {
    ReleaseSequence(sequence);
    return;
  }
  KeepLastLogits(generation, result);
  EndRunning(generation, Ending::Why::kFinished);
}

// The prompt is through: every output gets its first token from the same logits, and waits for a slot.
void Core::FinishPrompt(Sequence* sequence, const RowResult& result) {
  Generation* const generation = sequence->generation;
  sequence->phase = Sequence::Phase::kSource;
  generation->prompt_seen = true;
  generation->first_token = now_;
  writer_.WriteFirstTokens(generation, &counts_[sequence->slot], result.logits, result.token, sequence->position);
  if (const SnapshotOrder* order = generation->next_order();
      order != nullptr && order->position == generation->prompt_size()) {
    order->into->SetLogits(result.logits);
    BeginSaving(sequence, Sequence::Phase::kSource);
  }
  if (generation->num_unfinished > 0) return;
  KeepLastLogits(generation, result);
  EndRunning(generation, Ending::Why::kFinished);
}

}  // namespace statehouse
