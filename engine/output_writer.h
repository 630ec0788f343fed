// From logits to events: chooses an output's next token, tells the stream, and decides whether the output goes on.
// Thread-safety: owned by the engine thread. Nothing allocates after construction.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/generation.h"
#include "engine/sampling/sampler.h"
#include "engine/sampling/token_counts.h"
#include "engine/stats.h"
#include "engine/step_batch.h"  // kNotChosen
#include "models/tokenizer/vocabulary.h"

namespace statehouse {

class OutputWriter {
 public:
  // `vocabulary` may be null.
  OutputWriter(int64_t vocab_size, const Vocabulary* vocabulary, EngineStats* stats);
  int64_t bytes() const { return sampler_.bytes(); }

  // Whether an output's next choice sees the raw logits: a model may then make it. (Typical-p is the host's.)
  bool IsPlainChoice(const Generation& generation, int32_t output) const;

  // Chooses the token at `position` of an output from the logits of the row before it, unless the model did so (`token`
  // is not kNotChosen; the logits then matter only for log probabilities), and emits it unless it ends the output.
  // `counts` may be null where the plan has no penalties. Returns whether the output goes on. REQUIRES: room for one
  // event.
  bool WriteToken(Generation* generation, int32_t output, const TokenCounts* counts, std::span<const float> logits,
                  int32_t token, int64_t position);
  // The first tokens of all outputs, from the logits of the prompt's last row: what they share is worked out once, so
  // that many outputs take little longer than one. Those that go on are then kWaiting. REQUIRES: room for n events;
  // `token` as in WriteToken(), kNotChosen for n > 1.
  void WriteFirstTokens(Generation* generation, const TokenCounts* counts, std::span<const float> logits, int32_t token,
                        int64_t position);
  // Emits the log probability of the prompt's token at `position`. REQUIRES: room for one event.
  void WritePromptLogprob(Generation* generation, std::span<const float> logits, int64_t position);
  // Ends an output that did not end by itself.
  void Abandon(Generation* generation, int32_t output, FinishReason reason);

 private:
  // The log probabilities of one row that do not depend on the choice.
  struct RowLogprobs {
    double log_sum_exp = 0;
    int32_t num_top = 0;
    std::array<TokenLogprob, kMaxLogprobs> top = {};
  };

  // What an output's next choice may look at.
  static ChoiceContext ContextOf(const Generation& generation, int32_t output, const TokenCounts* counts,
                                 int64_t position);
  // Emits a chosen token, or the output's end. `row` is null where no log probabilities are wanted.
  bool Emit(Generation* generation, int32_t output, int32_t token, std::span<const float> logits,
            const RowLogprobs* row, int64_t position);
  void Finish(Generation* generation, int32_t output, const Event& event);
  static void FillLogprobs(std::span<const float> logits, int32_t num_top, RowLogprobs* row);
  static void SetLogprobs(const RowLogprobs& row, std::span<const float> logits, Event* event);

  Sampler sampler_;
  std::string text_;  // of one token
  RowLogprobs row_;
  EngineStats* const stats_;
};

}  // namespace statehouse
