#include "engine/output_writer.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "engine/sampling/logprobs.h"

namespace statehouse {
namespace {

// Most bytes that one token can add to a text: its own, each as U+FFFD, and what was held back before it.
int64_t MostTokenBytes(const Vocabulary* vocabulary) {
  if (vocabulary == nullptr) return 0;
  size_t most = 0;
  for (int32_t id = 0; id < vocabulary->size(); ++id) {
    most = std::max({most, vocabulary->TokenBytes(id).size(), vocabulary->TokenName(id).size()});
  }
  return static_cast<int64_t>(3 * (most + 4));
}

// A token can be missing because the request forbids all, or because the model's weights overflow.
bool HasNumber(std::span<const float> logits) {
  return std::any_of(logits.begin(), logits.end(), [](float logit) { return std::isfinite(logit); });
}

}  // namespace

OutputWriter::OutputWriter(int64_t vocab_size, const Vocabulary* vocabulary, EngineStats* stats)
    : sampler_(vocab_size), stats_(stats) {
  text_.reserve(MostTokenBytes(vocabulary));
}

bool OutputWriter::IsPlainChoice(const Generation& generation, int32_t output) const {
  const SamplingPlan& plan = generation.sampling;
  const bool is_early = generation.outputs[output].num_tokens < generation.request->stop.min_tokens;
  return !plan.edits_logits && plan.params.typical_p >= 1.0 && (!is_early || generation.end_tokens.empty());
}

bool OutputWriter::WriteToken(Generation* generation, int32_t output, const TokenCounts* counts,
                              std::span<const float> logits, int32_t token, int64_t position) {
  if (token == kNotChosen) {
    const ChoiceContext context = ContextOf(*generation, output, counts, position);
    token = sampler_.Choose(generation->sampling, context, logits);
  }
  const int32_t num_top = generation->request->num_logprobs;
  if (num_top >= 0) FillLogprobs(logits, num_top, &row_);
  return Emit(generation, output, token, logits, num_top >= 0 ? &row_ : nullptr, position);
}

void OutputWriter::WriteFirstTokens(Generation* generation, const TokenCounts* counts, std::span<const float> logits,
                                    int32_t token, int64_t position) {
  // No output has a token yet, so their choices differ in their keys only.
  const bool draws = token == kNotChosen;
  if (draws) sampler_.Prepare(generation->sampling, ContextOf(*generation, 0, counts, position), logits);
  const int32_t num_top = generation->request->num_logprobs;
  if (num_top >= 0) FillLogprobs(logits, num_top, &row_);
  for (int32_t output = 0; output < generation->n(); ++output) {
    if (draws) token = sampler_.Draw(generation->sampling, {generation->seed, output, position});
    if (!Emit(generation, output, token, logits, num_top >= 0 ? &row_ : nullptr, position)) continue;
    generation->outputs[output].state = Output::State::kWaiting;
    ++generation->num_waiting;
  }
}

ChoiceContext OutputWriter::ContextOf(const Generation& generation, int32_t output, const TokenCounts* counts,
                                      int64_t position) {
  const Output& state = generation.outputs[output];
  ChoiceContext context;
  context.key = {generation.seed, output, position};
  context.counts = counts;
  context.output = state.tokens;
  if (state.num_tokens < generation.request->stop.min_tokens) context.forbidden = generation.end_tokens;
  return context;
}

bool OutputWriter::Emit(Generation* generation, int32_t output, int32_t token, std::span<const float> logits,
                        const RowLogprobs* row, int64_t position) {
  Output& state = generation->outputs[output];
  const StopConditions& stop = generation->request->stop;
  Event end;
  end.kind = Event::Kind::kOutputFinished;
  end.output = output;
  end.reason = FinishReason::kStop;
  if (token < 0 && !HasNumber(logits)) {
    end.reason = FinishReason::kError;
    generation->no_number = true;
  }
  if (token < 0 || std::binary_search(generation->end_tokens.begin(), generation->end_tokens.end(), token)) {
    end.stop_token = token;
    end.text_bytes = state.text.Finish(&text_);
    Finish(generation, output, end);
    return false;
  }

  state.token = token;
  ++state.num_tokens;
  ++generation->completion_tokens;
  if (generation->sampling.params.mask != nullptr) state.tokens.push_back(token);
  const bool may_match = state.num_tokens >= stop.min_tokens;
  const std::optional<StopMatcher::Match> match = state.text.Append(token, may_match, &text_);
  const int64_t match_bytes = match.has_value() ? (stop.include_stop ? match->end : match->begin) : 0;

  Event event;
  event.kind = Event::Kind::kToken;
  event.output = output;
  event.token = token;
  event.position = position;
  event.text_bytes = match.has_value() ? match_bytes : state.text.final_bytes();
  if (row != nullptr) SetLogprobs(*row, logits, &event);
  generation->stream->Push(event);

  if (match.has_value()) {
    end.stop_index = match->pattern;
    end.text_bytes = match_bytes;
  } else if (state.num_tokens >= generation->max_tokens) {
    end.reason = FinishReason::kLength;
    end.text_bytes = state.text.Finish(&text_);
  } else {
    return true;
  }
  Finish(generation, output, end);
  return false;
}

void OutputWriter::WritePromptLogprob(Generation* generation, std::span<const float> logits, int64_t position) {
  Event event;
  event.kind = Event::Kind::kPromptLogprob;
  event.token = generation->request->prompt[position];
  event.position = position;
  FillLogprobs(logits, generation->request->num_prompt_logprobs, &row_);
  SetLogprobs(row_, logits, &event);
  generation->stream->Push(event);
}

void OutputWriter::Abandon(Generation* generation, int32_t output, FinishReason reason) {
  Event end;
  end.kind = Event::Kind::kOutputFinished;
  end.output = output;
  end.reason = reason;
  end.text_bytes = generation->outputs[output].text.Finish(&text_);
  Finish(generation, output, end);
}

void OutputWriter::Finish(Generation* generation, int32_t output, const Event& event) {
  Output& state = generation->outputs[output];
  if (state.state == Output::State::kWaiting) --generation->num_waiting;
  if (state.state == Output::State::kRunning) --generation->num_running;
  state.state = Output::State::kFinished;
  --generation->num_unfinished;
  stats_->finished[static_cast<size_t>(event.reason)].fetch_add(1, std::memory_order_relaxed);
  generation->stream->Push(event);
}

void OutputWriter::FillLogprobs(std::span<const float> logits, int32_t num_top, RowLogprobs* row) {
  row->log_sum_exp = LogSumExp(logits);
  row->num_top = TopLogprobs(logits, row->log_sum_exp, std::span<TokenLogprob>(row->top).first(num_top));
}

void OutputWriter::SetLogprobs(const RowLogprobs& row, std::span<const float> logits, Event* event) {
  event->logprob = LogprobOf(logits[event->token], row.log_sum_exp);
  event->num_top = row.num_top;
  std::copy_n(row.top.begin(), row.num_top, event->top.begin());
}

}  // namespace statehouse
