// The step loop's mind: owns slots and sequences, and takes every request from the queue to its last event, step by
// step.
//
// A step: end what was cancelled or is late · zero a slice of released slots · hand out slots (queue and forks, by
// priority and arrival) · copy a slice of forks and snapshots (where the
// model runs by itself: while it does) · plan rows · run them · choose and emit tokens. Where
// the model can, the step after one that only decodes is queued before that one has ended (core_ahead.cc). Nothing in
// it allocates, except where the device fails. Thread-safety: the engine thread, except slot_counts().
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/generation.h"
#include "engine/output_writer.h"
#include "engine/roster.h"
#include "engine/sampling/token_counts.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/state/slot_pool.h"
#include "engine/stats.h"
#include "engine/step_batch.h"
#include "engine/waker.h"
#include "models/model.h"

namespace statehouse {

class Core {
 public:
  struct Dependencies {
    Model* model = nullptr;
    const Vocabulary* vocabulary = nullptr;  // may be null
    Clock* clock = nullptr;
    Roster* roster = nullptr;
    Waker* waker = nullptr;
    EngineStats* stats = nullptr;
  };
  // `options` are resolved. Allocates slots and buffers.
  static absl::StatusOr<std::unique_ptr<Core>> Create(const Dependencies& dependencies, const EngineOptions& options);
  ~Core();

  // One step; false if there was nothing to do.
  bool Step();
  // When the next step has something to do although nobody wakes the engine: a deadline, or a reader that is too slow.
  absl::Time NextEvent() const;
  // Ends everything that runs or waits.
  void EndAll(Ending::Why why);

  struct SlotCounts {
    int64_t used = 0;
    int64_t zeroing = 0;
  };
  SlotCounts slot_counts() const;
  int64_t slot_bytes() const { return slots_->slot_bytes(); }
  int64_t workspace_bytes() const;

 private:
  // What a row brings to the choice of its token.
  struct RowResult {
    std::span<const float> logits;  // empty where the model chose, and nobody wants them in any case
    int32_t token = kNotChosen;     // what the model chose
    int64_t logit_row = -1;         // of the step; -1: of none
  };

  Core(const Dependencies& dependencies, const EngineOptions& options, std::unique_ptr<SlotPool> slots);
  absl::Status Reserve();

  // --- core_ending.cc: what ends a request ---
  bool EndDue();
  bool IsSlowReader(Generation* generation);
  void EndQueued(Generation* generation, Ending::Why why);
  void EndRunning(Generation* generation, Ending::Why why);
  void AbandonOutputs(Generation* generation, Ending::Why why);
  void FinishRunning(Generation* generation, Ending::Why why);
  void Retire(Generation* generation);  // common end: slots, bookkeeping; before the stream's last event
  void FailStep(const absl::Status& error);
  bool SlotsFailed();  // then all requests end
  Ending EndingOf(const Generation& generation, Ending::Why why) const;
  Usage UsageOf(const Generation& generation) const;
  Timings TimingsOf(const Generation& generation) const;

  // --- core_slots.cc: who holds a slot ---
  bool HandOutSlots();
  bool Admit(Generation* front);
  bool StartOutputs(Generation* generation, bool* exhausted);
  bool TakeSlot(Generation* generation, bool* exhausted, int32_t* slot);
  Sequence* StartSequence(Generation* generation, int32_t slot, Sequence::Phase phase, int32_t output);
  void StartPrompt(Generation* generation, int32_t slot);
  void BeginDecoding(Sequence* sequence);
  int64_t CopyFork(Sequence* sequence, int64_t max_bytes);
  void ReleaseSequence(Sequence* sequence);
  void DropReservation(Generation* generation, int32_t keep);
  void InsertActive(Sequence* sequence);
  void EraseActive(Sequence* sequence);
  int64_t NumUnreserved() const { return slots_->num_free() - reserved_; }

  // --- core_snapshots.cc: what is copied to and from slots ---
  bool CopySlices();
  bool Restore(Sequence* sequence, int64_t* budget);
  // Where the model runs steps by itself, slots are copied meanwhile: what is copied is in no
  // step, but for a row too many of a sequence that has ended.
  bool CopiesBesideSteps() const { return deps_.model->queues_ahead(); }
  void BeginSaving(Sequence* sequence, Sequence::Phase after);
  int64_t Save(Sequence* sequence, int64_t max_bytes);
  void SaveIfDue(Sequence* sequence);
  bool CloseWithSnapshot(Generation* generation, Ending::Why why);
  void KeepLastLogits(Generation* generation, const RowResult& result);

  // --- core_step.cc: what a step computes ---
  void CollectWork();
  Work WorkOf(const Sequence& sequence);
  int64_t PromptRows(const Sequence& sequence);
  bool TakeRoom(Generation* generation, int64_t events);
  bool NeedsSwitchOver(const Sequence& sequence) const;
  bool RunWork();
  void AddRows(Sequence* sequence, int64_t num_rows);
  void RunSwitchUnits(Sequence* sequence, int64_t num_units);
  void Advance(Sequence* sequence, int64_t num_rows);
  LogitUse UseOfLogits(const Generation& generation, int32_t output, int64_t position) const;
  void HandleResult(const LogitRow& row, const RowResult& result);
  void FinishPrompt(Sequence* sequence, const RowResult& result);
  absl::Status BeginStep();
  bool TakesLong() const;
  void NotifyListeners();
  void RecordStep();
  void PublishCounts();

  // --- core_ahead.cc: the step after the one under way ---
  absl::Status RunAhead();
  bool MayRunAhead();
  bool AddAhead(int32_t logit_row);
  void TakeUpAhead();

  // Constant after construction.
  const Dependencies deps_;
  const EngineOptions options_;
  const kernels::RetentionLayout layout_;

  // Owned by the engine thread.
  const std::unique_ptr<SlotPool> slots_;
  std::vector<Sequence> sequences_;       // by slot
  std::vector<Sequence*> active_;         // those that hold a slot, in scheduling order
  std::vector<Generation*> running_;      // in scheduling order
  int64_t reserved_ = 0;                  // slots promised to running requests
  kernels::AlignedBuffer counts_memory_;  // [slots, vocab] of uint32, touched only where a request has penalties
  std::vector<TokenCounts> counts_;       // by slot
  Scheduler scheduler_;
  StepBuffers buffers_[2];
  int current_ = 0;  // of the step that is planned or under way: always 0 but for those that were queued ahead
  absl::Status logits_status_;  // of the last rows' logits, asked for at the end of an answer
  bool is_ahead_ = false;       // the other one's step was begun, and has not ended
  OutputWriter writer_;
  std::vector<Work> work_;  // this step's, parallel to the two below
  std::vector<Sequence*> workers_;
  std::vector<int64_t> granted_;
  int64_t step_ = 0;
  int64_t last_sequence_id_ = 0;
  absl::Time step_began_;
  int64_t decode_rows_ = 0;  // of this step
  int64_t prompt_rows_ = 0;
  bool copied_ = false;      // in this step, something of forks or snapshots
  bool look_again_ = false;  // something changed while this step was planned: do not sleep after it
  absl::Time now_;
  uint64_t cancels_seen_ = 0;

  std::atomic<int64_t> num_used_{0};
  std::atomic<int64_t> num_zeroing_{0};
};

}  // namespace statehouse
