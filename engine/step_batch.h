// One step's rows on their way into the model, and the logits that come out. All memory is taken at construction.
// Thread-safety: owned by the engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/sequence.h"
#include "kernels/math/aligned_buffer.h"
#include "models/model.h"

namespace statehouse {

inline constexpr int32_t kNotChosen = -2;

// A row whose logits are wanted: the token at `position` of a sequence was its input.
struct LogitRow {
  Sequence* sequence;
  int64_t position;
  int64_t sequence_id;

  // False if the sequence ended since the row was added, and perhaps is being saved: nobody wants what it brings.
  bool is_wanted() const { return sequence->id == sequence_id && sequence->phase != Sequence::Phase::kSaving; }
};

class StepBuffers {
 public:
  // RESOURCE_EXHAUSTED says how many bytes are needed. `vocab_size` may be 0: then no logits are copied.
  absl::Status Reserve(int64_t max_rows, int64_t max_sequences, int64_t max_logit_rows, int64_t vocab_size);
  int64_t bytes() const { return logits_.size(); }
  std::span<float> all_logits() { return {logits_.as<float>(), static_cast<size_t>(logits_.size()) / sizeof(float)}; }

  void Clear();
  // Adds rows of one sequence: the inputs at its next positions. Logits are wanted from row `first_logit` on (counted
  // within these rows; tokens.size() for none); `last_use` says what for in the last row, all others are copied.
  void Add(Sequence* sequence, float* memory, std::span<const int32_t> tokens, int64_t first_logit,
           const LogitUse& last_use);
  // Adds the row that follows the one of a sequence that a step under way computes: its input is what that step chooses
  // for its logit row `choice`.
  void AddNext(Sequence* sequence, float* memory, int32_t choice, const LogitUse& use);
  int64_t num_rows() const { return static_cast<int64_t>(tokens_.size()); }

  // Runs all rows: begins, and waits for the results.
  absl::Status Begin(Model* model);
  absl::Status End(Model* model) { return model->EndForward(); }
  std::span<const LogitRow> logit_rows() const { return logit_rows_; }
  const LogitUse& use(int64_t logit_row) const { return uses_[logit_row]; }
  // The token that the model chose from a logit row, -1 if it found none; kNotChosen where the host chooses.
  int32_t token(int64_t logit_row) const { return uses_[logit_row].chooses ? chosen_[logit_row] : kNotChosen; }
  // Empty where nobody wanted them on the host.
  std::span<const float> logits(int64_t logit_row) const {
    if (!uses_[logit_row].copies) return {};
    return {logits_.as<float>() + logit_row * vocab_size_, static_cast<size_t>(vocab_size_)};
  }

 private:
  int64_t vocab_size_ = 0;
  std::vector<int32_t> tokens_;
  std::vector<StepSequence> sequences_;
  std::vector<int32_t> wanted_;       // row of each logit row
  std::vector<LogitRow> logit_rows_;  // parallel to wanted_, as the next two
  std::vector<LogitUse> uses_;
  std::vector<int32_t> chosen_;
  kernels::AlignedBuffer logits_;  // [logit rows, vocab]
};

}  // namespace statehouse
