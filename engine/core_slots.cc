// Core: who holds a slot.
//
// Slots go by (priority, arrival), strictly: who cannot have what it needs keeps the ones behind from taking it. A
// request with n outputs takes one slot for its prompt and reserves up to n - 1 for its forks (at least one, if there
// are two slots in all), so that it can always go on. Once the prompt is through, its sequence is the source: outputs
// are copied from it as slots come free, in order, and the last one takes the source itself. With a single slot there
// is nowhere to keep a source: each output takes it over, and the next one reads the prompt again.
#include <algorithm>

#include "engine/core.h"

namespace statehouse {
bool Core::HandOutSlots() {
  bool any = false;
  bool exhausted = false;  // somebody further ahead waits: only reserved slots may still be taken
  Generation* front = deps_.roster->Front();
  for (size_t idx = 0; idx < running_.size() || front != nullptr;) {
    const bool front_is_next = front != nullptr && (idx == running_.size() || front->order() < running_[idx]->order());
    if (!front_is_next) {
      any = StartOutputs(running_[idx], &exhausted) || any;
      ++idx;
    } else if (!exhausted && Admit(front)) {
      any = true;
      ++idx;  // it now stands at `idx`
      front = deps_.roster->Front();
    } else {
      exhausted = true;
      front = nullptr;
    }
  }
  return any;
}

bool Core::Admit(Generation* front) {
  const int64_t needed = front->n() > 1 && slots_->num_slots() > 1 ? 2 : 1;
  const int64_t unreserved = NumUnreserved();
  if (unreserved < needed) return false;
  deps_.roster->Pop(front, now_);
  front->admitted = now_;
  front->num_reserved = static_cast<int32_t>(std::min<int64_t>(front->n(), unreserved)) - 1;
  reserved_ += front->num_reserved;
  const auto place = std::upper_bound(running_.begin(), running_.end(), front,
                                      [](const Generation* a, const Generation* b) { return a->order() < b->order(); });
  running_.insert(place, front);
  Event event;
  event.kind = Event::Kind::kStarted;
  event.seed = front->seed;
  front->stream->Push(event);
  StartPrompt(front, slots_->Take());
  return true;
}

void Core::StartPrompt(Generation* generation, int32_t slot) {
  generation->source_slot = slot;
  const bool restores = generation->request->from != nullptr;
  StartSequence(generation, slot, restores ? Sequence::Phase::kRestoring : Sequence::Phase::kPrompt, -1);
  if (!generation->sampling.has_penalties) return;
  counts_[slot].Clear();
  counts_[slot].AddPrompt(generation->request->prompt);
}

Sequence* Core::StartSequence(Generation* generation, int32_t slot, Sequence::Phase phase, int32_t output) {
  Sequence& sequence = sequences_[slot];
  sequence = Sequence{};
  sequence.phase = phase;
  sequence.id = ++last_sequence_id_;
  sequence.generation = generation;
  sequence.slot = slot;
  sequence.output = output;
  InsertActive(&sequence);
  return &sequence;
}

bool Core::StartOutputs(Generation* generation, bool* exhausted) {
  bool any = false;
  while (generation->num_waiting > 0) {
    int32_t slot = -1;
    if (generation->source_slot < 0) {
      // No source is left, so the outputs run one by one from the start (a single slot).
      if (generation->num_running > 0 || !TakeSlot(generation, exhausted, &slot)) break;
      StartPrompt(generation, slot);
      return true;
    }
    Sequence* const source = &sequences_[generation->source_slot];
    if (source->phase != Sequence::Phase::kSource) break;
    const auto waiting = std::find_if(generation->outputs.begin(), generation->outputs.end(),
                                      [](const Output& output) { return output.state == Output::State::kWaiting; });
    const int32_t output = static_cast<int32_t>(waiting - generation->outputs.begin());
    if (generation->num_waiting == 1 || slots_->num_slots() == 1) {
      const bool is_copied = std::any_of(active_.begin(), active_.end(), [generation](const Sequence* sequence) {
        return sequence->generation == generation && sequence->phase == Sequence::Phase::kForking;
      });
      if (is_copied) break;
      DropReservation(generation, 0);
      generation->source_slot = -1;
      EraseActive(source);
      source->output = output;
      InsertActive(source);
      BeginDecoding(source);
    } else {
      if (NeedsSwitchOver(*source) || !TakeSlot(generation, exhausted, &slot)) break;
      StartSequence(generation, slot, Sequence::Phase::kForking, output);
    }
    waiting->state = Output::State::kRunning;
    --generation->num_waiting;
    ++generation->num_running;
    any = true;
  }
  return any;
}

// A slot of the request's own reservation, or one that nobody was promised.
bool Core::TakeSlot(Generation* generation, bool* exhausted, int32_t* slot) {
  const bool reserved = generation->num_reserved > 0 && slots_->num_free() > 0;
  if (!reserved && (*exhausted || NumUnreserved() <= 0)) {
    *exhausted = true;
    return false;
  }
  if (reserved) DropReservation(generation, generation->num_reserved - 1);
  *slot = slots_->Take();
  return true;
}

void Core::DropReservation(Generation* generation, int32_t keep) {
  reserved_ -= generation->num_reserved - keep;
  generation->num_reserved = keep;
}

// Returns the bytes copied.
int64_t Core::CopyFork(Sequence* sequence, int64_t max_bytes) {
  const Sequence& source = sequences_[sequence->generation->source_slot];
  const int64_t bytes = slots_->CopySlice(source.slot, sequence->slot, source.position, max_bytes, &sequence->copied);
  if (sequence->copied != SlotPool::kCopied) return bytes;
  sequence->position = source.position;
  sequence->switched = source.switched;
  if (sequence->generation->sampling.has_penalties) counts_[sequence->slot].CopyFrom(counts_[source.slot]);
  BeginDecoding(sequence);
  deps_.stats->forks.fetch_add(1, std::memory_order_relaxed);
  return bytes;
}

// The sequence holds the prompt, and its output's first token is chosen: that token is its next row.
void Core::BeginDecoding(Sequence* sequence) {
  const Generation& generation = *sequence->generation;
  sequence->phase = Sequence::Phase::kDecoding;
  if (generation.sampling.has_penalties) counts_[sequence->slot].AddOutput(generation.outputs[sequence->output].token);
}

void Core::ReleaseSequence(Sequence* sequence) {
  Generation* const generation = sequence->generation;
  EraseActive(sequence);
  if (generation->source_slot == sequence->slot) generation->source_slot = -1;
  slots_->Release(sequence->slot);
  *sequence = Sequence{};
  // A request whose last running output ended keeps a slot for its next one: otherwise sources could hold all slots and
  // wait for each other. (The last output takes the source itself.)
  const bool takes_source = generation->source_slot >= 0 && generation->num_waiting == 1;
  const bool stuck = generation->num_waiting > 0 && generation->num_running == 0 && !takes_source;
  if (stuck && generation->num_reserved == 0) {
    generation->num_reserved = 1;
    ++reserved_;
  }
}

void Core::InsertActive(Sequence* sequence) {
  const auto place = std::upper_bound(active_.begin(), active_.end(), sequence,
                                      [](const Sequence* a, const Sequence* b) { return a->order() < b->order(); });
  active_.insert(place, sequence);
}

void Core::EraseActive(Sequence* sequence) { active_.erase(std::find(active_.begin(), active_.end(), sequence)); }

}  // namespace statehouse
