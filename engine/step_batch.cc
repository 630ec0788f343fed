#include "engine/step_batch.h"

#include "absl/strings/str_cat.h"

namespace statehouse {

absl::Status StepBuffers::Reserve(int64_t max_rows, int64_t max_sequences, int64_t max_logit_rows, int64_t vocab_size) {
  vocab_size_ = vocab_size;
  tokens_.reserve(max_rows);
  sequences_.reserve(max_sequences);
  wanted_.reserve(max_logit_rows);
  logit_rows_.reserve(max_logit_rows);
  uses_.reserve(max_logit_rows);
  chosen_.resize(max_logit_rows);
  const int64_t bytes = max_logit_rows * vocab_size * static_cast<int64_t>(sizeof(float));
  if (logits_.Allocate(bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("step buffers: the logits of ", max_logit_rows, " rows need ", bytes,
                                                   " bytes, which the host does not have; lower --max-num-seqs"));
}

void StepBuffers::Clear() {
  tokens_.clear();
  sequences_.clear();
  wanted_.clear();
  logit_rows_.clear();
  uses_.clear();
}

void StepBuffers::Add(Sequence* sequence, float* memory, std::span<const int32_t> tokens, int64_t first_logit,
                      const LogitUse& last_use) {
  StepSequence added;
  added.memory = memory;
  added.position = sequence->position;
  added.first_row = static_cast<int32_t>(tokens_.size());
  added.num_rows = static_cast<int32_t>(tokens.size());
  sequences_.push_back(added);
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  for (int64_t row = first_logit; row < added.num_rows; ++row) {
    wanted_.push_back(added.first_row + static_cast<int32_t>(row));
    logit_rows_.push_back({sequence, sequence->position + row, sequence->id});
    uses_.push_back(row + 1 == added.num_rows ? last_use : LogitUse{});
  }
}

void StepBuffers::AddNext(Sequence* sequence, float* memory, int32_t choice, const LogitUse& use) {
  StepSequence added;
  added.memory = memory;
  added.position = sequence->position + 1;
  added.first_row = static_cast<int32_t>(tokens_.size());
  added.num_rows = 1;
  sequences_.push_back(added);
  tokens_.push_back(ChosenBefore(choice));
  wanted_.push_back(added.first_row);
  logit_rows_.push_back({sequence, added.position, sequence->id});
  uses_.push_back(use);
}

absl::Status StepBuffers::Begin(Model* model) {
  const size_t num_logits = wanted_.size() * static_cast<size_t>(vocab_size_);
  return model->BeginForward({tokens_, sequences_, wanted_},
                             {{logits_.as<float>(), num_logits}, uses_, {chosen_.data(), wanted_.size()}});
}

}  // namespace statehouse
