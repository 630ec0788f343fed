// The sequences that `statehouse bench` runs on a model: one that grows, and copies of it that decode.
//
// A copy has the same state as a sequence that got there on its own, so a batch at a long context costs one prefill.
// Thread-safety: one thread; uses the model as the engine thread would.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "models/model.h"
#include "models/slot_memory.h"

namespace statehouse {

class BenchSequences {
 public:
  struct PrefillStep {
    int64_t position = 0;  // of its first row
    int64_t rows = 0;
    double seconds = 0;
  };

  // `model` must outlive this object. `step_tokens`: rows of one prompt step.
  BenchSequences(Model* model, int64_t step_tokens);
  ~BenchSequences() { model_->RegisterLogits({}); }
  // Makes room for `max_batch` copies. RESOURCE_EXHAUSTED says how many bytes are needed.
  absl::Status Allocate(int64_t max_batch);

  // Tokens that the growing sequence holds.
  int64_t position() const { return position_; }
  // Grows it. Appends what each step took; the switch-over counts into the step behind it. `on_progress(position)` may
  // be empty.
  absl::Status PrefillTo(int64_t position, const std::function<void(int64_t)>& on_progress,
                         std::vector<PrefillStep>* steps);
  // Decodes one token per step on `batch` copies of it: at least `min_runs` steps, and more, up to a whole chunk, for
  // as long as `max_seconds` lasts. Appends the seconds of each; the growing sequence stays as it is. `between` is
  // called after each step, outside its time; it may be empty.
  absl::Status Decode(int64_t batch, int64_t min_runs, double max_seconds, const std::function<void()>& between,
                      std::vector<double>* seconds);
  // A prompt in one piece and in odd pieces must give the same finite logits, bit for bit (within 3 % in a GPU's fast
  // mode). INTERNAL says where they differ. REQUIRES: nothing was prefilled yet; afterwards nothing is.
  absl::Status CheckResult();

 private:
  absl::Status CheckNear(const std::vector<float>& expected) const;
  void SwitchOverIfDue(float* memory, int64_t position);
  absl::Status Grow(float* memory, int64_t* position, int64_t rows);
  int64_t RowsOfNextStep(int64_t position, int64_t target) const;
  int32_t TokenAt(int64_t position) const;
  float* Slot(int64_t idx) { return slots_->slot(idx); }

  Model* const model_;
  const int64_t step_tokens_;
  const int64_t slot_floats_;
  std::unique_ptr<SlotMemory> slots_;  // the growing sequence's, then the copies'
  std::vector<int32_t> tokens_;
  std::vector<float> logits_;
  int64_t position_ = 0;
};

}  // namespace statehouse
