// A FakeModel that chooses tokens and takes two steps at once, as a GPU does: each step happens when it is begun, in
// order with everything else that is asked of the slots, and its results come when it is ended.
#pragma once

#include <algorithm>
#include <deque>
#include <limits>
#include <vector>

#include "engine/sampling/sampler.h"
#include "tests/support/fake_model.h"

namespace statehouse::testing {

class AheadModel final : public FakeModel {
 public:
  using FakeModel::FakeModel;
  bool chooses_tokens() const override { return true; }
  bool queues_ahead() const override { return true; }

  absl::Status BeginForward(const StepBatch& batch, const StepResults& results) override {
    if (steps_.size() >= 2) return absl::InternalError("a third step was begun");
    num_ahead_ += steps_.empty() ? 0 : 1;
    Step step;
    step.results = results;
    std::vector<int32_t> tokens(batch.tokens.begin(), batch.tokens.end());
    for (int32_t& token : tokens) {
      if (token < 0) token = std::max(chosen_before_.at(-1 - token), 0);
    }
    num_decode_rows_ += std::ranges::all_of(batch.sequences, [](const auto& rows) { return rows.num_rows == 1; })
                            ? static_cast<int64_t>(tokens.size())
                            : 0;
    const int64_t vocab = config().vocab_size, rows = static_cast<int64_t>(batch.logit_rows.size());
    step.logits.resize(rows * vocab);
    if (absl::Status status = Forward({tokens, batch.sequences, batch.logit_rows}, step.logits); !status.ok()) {
      return status;
    }
    chosen_before_.clear();
    for (int64_t row = 0; row < static_cast<int64_t>(results.uses.size()); ++row) {
      if (results.uses[row].chooses) chosen_before_.push_back(Choose(step, row));
    }
    step.chosen = chosen_before_;
    steps_.push_back(std::move(step));
    return absl::OkStatus();
  }

  absl::Status EndForward() override {
    if (steps_.empty()) return absl::InternalError("no step was begun");
    last_ = std::move(steps_.front());
    steps_.pop_front();
    const Step& step = last_;
    const int64_t vocab = config().vocab_size;
    size_t choice = 0;
    for (size_t row = 0; row < step.results.uses.size(); ++row) {
      const LogitUse& use = step.results.uses[row];
      if (use.chooses) step.results.tokens[row] = step.chosen[choice++];
      if (use.copies) {
        std::copy_n(step.logits.begin() + static_cast<int64_t>(row) * vocab, vocab,
                    step.results.logits.begin() + static_cast<int64_t>(row) * vocab);
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadLogits(int64_t logit_row, std::span<float> to) override {
    if (!last_.results.uses[logit_row].keeps) return absl::InternalError("logits that were not kept");
    std::copy_n(last_.logits.begin() + logit_row * config().vocab_size, to.size(), to.begin());
    return absl::OkStatus();
  }

  // Steps that were begun before the one before had ended.
  int64_t num_ahead() const { return num_ahead_; }
  int64_t num_under_way() const { return static_cast<int64_t>(steps_.size()); }
  // Of steps with one row per sequence.
  int64_t num_decode_rows() const { return num_decode_rows_; }

 private:
  struct Step {
    StepResults results;
    std::vector<float> logits;
    std::vector<int32_t> chosen;
  };

  int32_t Choose(const Step& step, int64_t row) const {
    const int64_t vocab = config().vocab_size;
    const TokenChoice& choice = step.results.uses[row].choice;
    SamplingParams params;
    params.temperature = choice.temperature;
    params.top_k = choice.top_k;
    params.top_p = choice.top_p;
    params.min_p = choice.min_p;
    ChoiceContext context;
    context.key = {choice.seed, choice.output, choice.position};
    const std::span<const float> logits(step.logits.data() + row * vocab, static_cast<size_t>(vocab));
    return Sampler(vocab).Choose(SamplingPlan(params, vocab), context, logits);
  }

  std::deque<Step> steps_;
  Step last_;  // that ended
  std::vector<int32_t> chosen_before_;
  int64_t num_ahead_ = 0, num_decode_rows_ = 0;
};

}  // namespace statehouse::testing
