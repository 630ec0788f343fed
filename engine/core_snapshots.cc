// Core: snapshots, from slots and into them.
//
// A request that starts from a snapshot takes a slot like any other and fills it in slices; one that orders snapshots
// pauses for the slices of each. Both share the budget of bytes that forks are copied with, so that streams beside them
// go on.
#include <algorithm>

#include "engine/core.h"

namespace statehouse {
namespace {

// Copying is spread over steps, so that hundreds of megabytes do not hold up the sequences that decode.
constexpr int64_t kCopyBytesPerStep = 64 << 20;

}  // namespace

bool Core::CopySlices() {
  int64_t budget = kCopyBytesPerStep;
  bool any = false;
  for (size_t idx = 0; idx < active_.size() && budget > 0;) {
    Sequence* const sequence = active_[idx];
    if (sequence->phase == Sequence::Phase::kForking) {
      budget -= CopyFork(sequence, budget);
      any = true;
    } else if (sequence->phase == Sequence::Phase::kRestoring) {
      any = Restore(sequence, &budget) || any;
    } else if (sequence->phase == Sequence::Phase::kSaving) {
      budget -= Save(sequence, budget);
      any = true;
    }
    // Ending a request takes its sequences out of active_.
    if (idx < active_.size() && active_[idx] == sequence) ++idx;
  }
  return any;
}

// False if all is copied and the first tokens find no room yet.
bool Core::Restore(Sequence* sequence, int64_t* budget) {
  Generation* const generation = sequence->generation;
  const Snapshot& from = *generation->request->from;
  if (sequence->copied != SlotPool::kCopied) {
    *budget -=
        slots_->RestoreSlice(from.regions(), from.point().used_floats, sequence->slot, *budget, &sequence->copied);
    if (sequence->copied != SlotPool::kCopied) return true;
    deps_.stats->snapshots_restored.fetch_add(1, std::memory_order_relaxed);
    sequence->position = from.position();
    sequence->switch_units = from.point().switch_units;
    sequence->switched = from.point().switched;
    if (!generation->prompt_seen) generation->cached_tokens = generation->prompt_tokens_done = from.position();
    generation->furthest = std::max(generation->furthest, from.position());
  }
  if (from.position() < generation->prompt_size()) {
    sequence->phase = Sequence::Phase::kPrompt;
  } else if (generation->prompt_seen) {
    sequence->phase = Sequence::Phase::kSource;
  } else if (generation->stream->HasRoomOrWake(generation->n())) {
    FinishPrompt(sequence, {.logits = from.logits()});
  } else {
    return false;
  }
  return true;
}

void Core::BeginSaving(Sequence* sequence, Sequence::Phase after) {
  SnapshotDraft& draft = *sequence->generation->next_order()->into;
  draft.Begin({.position = sequence->position,
               .used_floats = slots_->used_floats(sequence->slot),
               .switch_units = sequence->switch_units,
               .switched = sequence->switched});
  sequence->copied = 0;
  sequence->after_saving = after;
  sequence->phase = Sequence::Phase::kSaving;
}

int64_t Core::Save(Sequence* sequence, int64_t max_bytes) {
  Generation* const generation = sequence->generation;
  SnapshotDraft& draft = *generation->next_order()->into;
  const int64_t bytes = slots_->SaveSlice(sequence->slot, draft.regions(), max_bytes, &sequence->copied);
  if (sequence->copied != SlotPool::kCopied || !slots_->status().ok()) return bytes;
  draft.MarkFilled();
  deps_.stats->snapshots_saved.fetch_add(1, std::memory_order_relaxed);
  ++generation->next_snapshot;
  sequence->copied = 0;
  sequence->phase = sequence->after_saving;
  if (generation->closing) {
    generation->closing = false;
    EndRunning(generation, generation->closing_why);
  }
  return bytes;
}

// A prompt that has come to the position of its next snapshot pauses there.
void Core::SaveIfDue(Sequence* sequence) {
  if (sequence->phase != Sequence::Phase::kPrompt) return;
  const SnapshotOrder* const order = sequence->generation->next_order();
  if (order != nullptr && order->position == sequence->position) BeginSaving(sequence, Sequence::Phase::kPrompt);
}

// The request's end waits for a snapshot that is being copied or is still to be taken there. False if there is none.
bool Core::CloseWithSnapshot(Generation* generation, Ending::Why why) {
  const auto close = [&] {
    generation->closing = true;
    generation->closing_why = why;
    return true;
  };
  for (Sequence* sequence : active_) {
    if (sequence->generation == generation && sequence->phase == Sequence::Phase::kSaving) return close();
  }
  // Positions that the prompt did not come to are left out.
  while (generation->next_order() != nullptr && generation->next_order()->position != SnapshotOrder::kAtEnd) {
    ++generation->next_snapshot;
  }
  if (generation->next_order() == nullptr) return false;
  for (Sequence* sequence : active_) {
    const bool holds_tokens = sequence->position > 0 && sequence->phase != Sequence::Phase::kRestoring;
    if (sequence->generation != generation || !holds_tokens) continue;
    BeginSaving(sequence, sequence->phase);
    return close();
  }
  return false;
}

// The logits of the last row belong to the snapshot at the end.
void Core::KeepLastLogits(Generation* generation, const RowResult& result) {
  const std::vector<SnapshotOrder>& orders = generation->request->snapshots;
  if (orders.empty() || orders.back().position != SnapshotOrder::kAtEnd) return;
  std::span<const float> logits = result.logits;
  if (logits.empty() && result.logit_row >= 0) {
    const size_t vocab = static_cast<size_t>(deps_.model->config().vocab_size);
    const std::span<float> place = buffers_[0].all_logits().subspan(result.logit_row * vocab, vocab);
    if (absl::Status status = deps_.model->ReadLogits(result.logit_row, place); !status.ok()) {
      logits_status_ = std::move(status);  // the step fails
      return;
    }
    logits = place;
  }
  orders.back().into->SetLogits(logits);
}

}  // namespace statehouse
