// The gaps between tokens of running streams while a long prompt is prefilled, on an engine driven step by step.
#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/engine.h"
#include "server/commands/bench.h"

namespace statehouse {
namespace {

std::unique_ptr<Request> MakeRequest(int64_t prompt_tokens, int64_t max_tokens, int64_t vocab_size) {
  auto request = std::make_unique<Request>();
  for (int64_t i = 0; i < prompt_tokens; ++i) request->prompt.push_back(static_cast<int32_t>((i * 7919) % vocab_size));
  request->sampling.temperature = 0;
  request->stop.max_tokens = max_tokens;
  request->stop.ignore_eos = true;
  return request;
}

// Takes what waits in the stream; how many tokens, and whether it ended.
int64_t Drain(EventStream& stream, bool* done) {
  int64_t tokens = 0;
  for (Event event; stream.TryNext(&event);) {
    tokens += event.kind == Event::Kind::kToken ? 1 : 0;
    *done |= event.kind == Event::Kind::kDone;
  }
  return tokens;
}

// Steps that compute a whole budget of prompt rows past the switch-over, with nothing else running.
absl::StatusOr<double> MeasureFullStep(Engine& engine, const Model& model, const BenchOptions& options) {
  const kernels::RetentionLayout& layout = model.retention();
  const int64_t switch_over = layout.has_state() ? layout.shape().switch_over : 0;
  const int64_t warm_up = switch_over + 2 * options.step_tokens;
  int64_t prompt = warm_up + options.step_tokens * options.min_runs;
  if (!layout.has_state()) prompt = std::min(prompt, layout.shape().max_tail_tokens - 1);
  auto stream = engine.Submit(MakeRequest(prompt, 1, model.config().vocab_size));
  if (!stream.ok()) return stream.status();
  std::vector<double> seconds;
  for (bool done = false; !done;) {
    const int64_t before = engine.stats().prefill_tokens;
    const double start = SteadySeconds();
    if (!engine.RunStep()) break;
    const double taken = SteadySeconds() - start;
    if (engine.stats().prefill_tokens - before == options.step_tokens && before >= warm_up) seconds.push_back(taken);
    Drain(**stream, &done);
  }
  if (seconds.empty())
    return absl::InternalError("no step took a whole budget of prompt rows; choose a longer --long-prompt");
  return Median(seconds);
}

struct Stream {
  std::shared_ptr<EventStream> events;
  double last_token = 0;
};

// Runs the streams until each has had a few tokens.
absl::Status WarmUp(Engine& engine, std::vector<Stream>& streams) {
  constexpr int kSteps = 50;
  for (int step = 0; step < kSteps; ++step) {
    if (!engine.RunStep()) break;
    for (Stream& stream : streams) {
      bool done = false;
      if (Drain(*stream.events, &done) > 0) stream.last_token = SteadySeconds();
      if (done)
        return absl::InternalError("a stream ended before the measurement: " +
                                   std::string(stream.events->status().message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<InterferenceFigure> MeasureInterference(Model* model, const BenchOptions& options,
                                                       const BenchObserver& observer) {
  EngineOptions engine_options;
  engine_options.max_num_seqs = options.streams + 1;
  engine_options.max_num_batched_tokens = std::max(options.step_tokens, options.streams + 1);
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Create(model, nullptr, engine_options);
  if (!engine.ok()) return engine.status();
  absl::StatusOr<double> full_step = MeasureFullStep(**engine, *model, options);
  if (!full_step.ok()) return full_step.status();
  const kernels::RetentionLayout& layout = model->retention();
  constexpr int64_t kStreamPrompt = 16;
  const int64_t stream_tokens = layout.has_state() ? 1 << 20 : layout.shape().max_tail_tokens - kStreamPrompt;
  std::vector<Stream> streams(options.streams);
  for (Stream& stream : streams) {
    auto events = (*engine)->Submit(MakeRequest(kStreamPrompt, stream_tokens, model->config().vocab_size));
    if (!events.ok()) return events.status();
    stream.events = *events;
  }
  if (absl::Status status = WarmUp(**engine, streams); !status.ok()) return status;
  InterferenceFigure figure = {
      .streams = options.streams, .prompt_tokens = options.long_prompt, .full_step = *full_step};
  if (!layout.has_state()) figure.prompt_tokens = std::min(figure.prompt_tokens, layout.shape().max_tail_tokens - 1);
  auto prompt = (*engine)->Submit(MakeRequest(figure.prompt_tokens, 1, model->config().vocab_size));
  if (!prompt.ok()) return prompt.status();
  const int64_t before = (*engine)->stats().prefill_tokens;
  std::vector<double> gaps;
  for (bool done = false; !done && (*engine)->RunStep();) {
    const double now = SteadySeconds();
    bool ignored = false;
    for (Stream& stream : streams) {
      if (Drain(*stream.events, &ignored) == 0) continue;
      gaps.push_back(now - stream.last_token);
      stream.last_token = now;
    }
    Drain(**prompt, &done);
    if (observer.on_progress)
      observer.on_progress("interference", (*engine)->stats().prefill_tokens - before, figure.prompt_tokens);
  }
  (*engine)->CancelAll();
  while ((*engine)->RunStep()) {
  }
  if (gaps.empty()) return absl::InternalError("no stream got a token while the long prompt was prefilled");
  std::sort(gaps.begin(), gaps.end());
  const auto at = [&](double share) { return gaps[static_cast<size_t>(share * static_cast<double>(gaps.size() - 1))]; };
  figure.gaps = static_cast<int64_t>(gaps.size());
  figure.gap_p50 = at(0.5);
  figure.gap_p99 = at(0.99);
  figure.gap_max = gaps.back();
  return figure;
}

}  // namespace statehouse
