// Runs one sequence on a model as the engine would: steps that stop at the switch-over, the switch-over, then on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "models/model.h"
#include "models/slot_memory.h"

namespace statehouse::testing {

class SequenceRunner {
 public:
  explicit SequenceRunner(Model* model) : model_(model) {
    auto memory = model->AllocateSlots(model->slot_floats() * static_cast<int64_t>(sizeof(float)), 1);
    EXPECT_TRUE(memory.ok()) << memory.status();
    if (memory.ok()) memory_ = *std::move(memory);
  }

  // How many of `wanted` rows the next step may hold; runs the switch-over first if it is due.
  int64_t PrepareRows(int64_t wanted) {
    const int64_t switch_over = model_->retention().shape().switch_over;
    if (position_ == switch_over && switch_over > 0 && !switched_) {
      for (int64_t unit = 0; unit < model_->num_switch_units(); ++unit) model_->SwitchOver(memory(), unit);
      switched_ = true;
    }
    return position_ < switch_over ? std::min(wanted, switch_over - position_) : wanted;
  }

  // Appends tokens in steps of at most `piece` rows; returns the logits of every one, [tokens.size(), vocab].
  std::vector<float> Append(std::span<const int32_t> tokens, int64_t piece) {
    const int64_t vocab = model_->config().vocab_size;
    std::vector<float> logits(tokens.size() * vocab);
    int64_t done = 0;
    while (done < static_cast<int64_t>(tokens.size())) {
      const int64_t left = static_cast<int64_t>(tokens.size()) - done;
      const int64_t rows = PrepareRows(std::min(left, piece));
      std::vector<int32_t> logit_rows(rows);
      for (int64_t i = 0; i < rows; ++i) logit_rows[i] = static_cast<int32_t>(i);
      const StepSequence sequence = {memory(), position_, 0, static_cast<int32_t>(rows)};
      const StepBatch batch = {tokens.subspan(done, rows), {&sequence, 1}, logit_rows};
      const absl::Status status = model_->Forward(batch, std::span(logits).subspan(done * vocab, rows * vocab));
      EXPECT_TRUE(status.ok()) << status;
      Advance(rows);
      done += rows;
    }
    return logits;
  }

  // The slot holds a sequence that came from elsewhere.
  void Continue(int64_t position, bool switched) {
    position_ = position;
    switched_ = switched;
  }
  bool switched() const { return switched_; }
  void Advance(int64_t rows) { position_ += rows; }
  float* memory() { return memory_->slot(0); }
  SlotMemory& slots() { return *memory_; }
  int64_t position() const { return position_; }

 private:
  Model* model_;
  std::unique_ptr<SlotMemory> memory_;
  int64_t position_ = 0;
  bool switched_ = false;
};

// Index of the largest logit, the lowest on a tie.
inline int32_t Argmax(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace statehouse::testing
