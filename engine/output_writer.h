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
#include "models/tokenizer/vocabulary.h"

namespace statehouse {

class OutputWriter {
 public:
  // `vocabulary` may be null.
  OutputWriter(int64_t vocab_size, const Vocabulary* vocabulary, EngineStats* stats);
  int64_t bytes() const { return sampler_.bytes(); }

  // Chooses the token at `position` of an output from the logits of the row before it, and emits it unless it ends the
  // output. `counts` may be null where the plan has no penalties. Returns whether the output goes on. REQUIRES: room
  // for one event.
  bool WriteToken(Generation* generation, int32_t output, const TokenCounts* counts, std::span<const float> logits,
                  int64_t position);
  // Emits the log probability of the prompt's token at `position`. REQUIRES: room for one event.
  void WritePromptLogprob(Generation* generation, std::span<const float> logits, int64_t position);
  // Ends an output that did not end by itself.
  void Abandon(Generation* generation, int32_t output, FinishReason reason);

 private:
  void Finish(Generation* generation, int32_t output, const Event& event);
  static void FillLogprobs(std::span<const float> logits, int32_t token, int32_t num_top, Event* event);

  Sampler sampler_;
  std::string text_;  // of one token
  EngineStats* const stats_;
};

}  // namespace statehouse
