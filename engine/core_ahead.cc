// Core: the step after the one under way, queued before that one has ended.
//
// While all that is active decodes, and the model chooses the tokens, nothing of the host is needed between two steps:
// the next one takes its inputs from where the model chose them, and the host emits the tokens of the one before
// meanwhile. A row is queued as if its output went on. If it does not (a stop token or text, a cancellation), what the
// row brings is dropped, and so is the row: a snapshot at the end is one position before it, which is as good as never
// having come there while no fold lies between.
#include "engine/core.h"

namespace statehouse {

// OK also if nothing can be queued.
absl::Status Core::RunAhead() {
  if (!MayRunAhead()) return absl::OkStatus();
  StepBuffers& step = buffers_[current_];
  StepBuffers& ahead = buffers_[1 - current_];
  ahead.Clear();
  for (size_t row = 0; row < step.logit_rows().size(); ++row) {
    if (step.logit_rows()[row].is_wanted() && !AddAhead(static_cast<int32_t>(row))) return absl::OkStatus();
  }
  if (ahead.num_rows() == 0) return absl::OkStatus();
  absl::Status status = ahead.Begin(deps_.model);
  is_ahead_ = status.ok();
  return status;
}

// Is the step under way one of all active sequences, which all decode, with tokens that the model chooses?
bool Core::MayRunAhead() {
  if (!deps_.model->queues_ahead() || workers_.size() != active_.size()) return false;
  for (size_t idx = 0; idx < workers_.size(); ++idx) {
    if (work_[idx].kind != Work::Kind::kDecode || granted_[idx] != 1) return false;
    workers_[idx]->generation->step_room = -1;
  }
  const StepBuffers& step = buffers_[current_];
  for (size_t row = 0; row < step.logit_rows().size(); ++row) {
    const LogitUse& use = step.use(static_cast<int64_t>(row));
    if (!use.chooses || use.copies) return false;
  }
  return true;
}

// Queues the row after one that is under way, unless that is its output's last. False if the sequence must be looked at
// before it goes on, so that no step can be queued.
bool Core::AddAhead(int32_t logit_row) {
  Sequence* const sequence = buffers_[current_].logit_rows()[logit_row].sequence;
  Generation* const generation = sequence->generation;
  const int64_t position = sequence->position + 1;  // of the row
  const bool is_last = generation->outputs[sequence->output].num_tokens + 1 >= generation->max_tokens;
  // Room for the event of the row under way, and for this one's.
  if (generation->step_room < 0) generation->step_room = generation->stream->room();
  generation->step_room -= is_last ? 1 : 2;
  if (generation->step_room < 0) return false;
  if (is_last) return true;
  if (layout_.has_switch_over() && position == layout_.shape().switch_over) return false;
  const bool folds = layout_.TailStart(position) != layout_.TailStart(position - 1);
  const bool completes_rows = layout_.has_switch_over() && position + 1 == layout_.shape().switch_over;
  if ((folds || completes_rows) && generation->next_order() != nullptr) return false;
  const LogitUse use = UseOfLogits(*generation, sequence->output, position + 1);
  if (!use.chooses || use.copies) return false;
  slots_->NoteUse(sequence->slot, position + 1);
  buffers_[1 - current_].AddNext(sequence, slots_->memory(sequence->slot), logit_row, use);
  return true;
}

// The step that was queued is the one under way now.
void Core::TakeUpAhead() {
  is_ahead_ = false;
  current_ = 1 - current_;
  work_.clear();
  workers_.clear();
  decode_rows_ = buffers_[current_].num_rows();
  prompt_rows_ = 0;
  for (const LogitRow& row : buffers_[current_].logit_rows()) {
    if (!row.is_wanted()) continue;
    row.sequence->last_served = step_;
    granted_[workers_.size()] = 1;
    workers_.push_back(row.sequence);
    work_.push_back({.kind = Work::Kind::kDecode});
  }
}

}  // namespace statehouse
