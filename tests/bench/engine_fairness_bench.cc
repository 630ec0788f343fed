// Do running streams stall while a long prompt is read? Prints the gaps between tokens of 8 streams while a 100 k-token
// prompt prefills, against the time of one full-budget step. Target: p99 gap <= 1.5 full-budget steps.
//
//   engine_fairness_bench --model models/demo/checkpoint [--dummy] [--prompt-tokens 100000] [--streams 8] [--budget
//   512]
//                         [--threads 0]
//
// Checked first: the streams' tokens are those they get without the long prompt.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "kernels/parallel/thread_pool.h"
#include "models/model.h"

namespace statehouse {
namespace {

struct Flags {
  std::string model;
  bool dummy = false;
  int64_t prompt_tokens = 100000;
  int64_t streams = 8;
  int64_t budget = 512;
  int threads = 0;
};

// Returns false if the command line is not understood.
bool ParseFlags(int argc, char** argv, Flags* flags) {
  for (int idx = 1; idx < argc; ++idx) {
    const std::string name = argv[idx];
    if (name == "--dummy") {
      flags->dummy = true;
      continue;
    }
    if (idx + 1 == argc) return false;
    const char* const value = argv[++idx];
    if (name == "--model") {
      flags->model = value;
    } else if (name == "--prompt-tokens") {
      flags->prompt_tokens = std::atoll(value);
    } else if (name == "--streams") {
      flags->streams = std::atoll(value);
    } else if (name == "--budget") {
      flags->budget = std::atoll(value);
    } else if (name == "--threads") {
      flags->threads = std::atoi(value);
    } else {
      return false;
    }
  }
  return !flags->model.empty() && flags->prompt_tokens > 0 && flags->streams > 0 && flags->budget > flags->streams;
}

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double Quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t idx = static_cast<size_t>(q * static_cast<double>(values.size() - 1) + 0.5);
  return values[idx];
}

std::unique_ptr<Request> MakeRequest(int64_t prompt_tokens, int64_t max_tokens, int32_t vocab_size, uint64_t seed) {
  auto request = std::make_unique<Request>();
  uint64_t state = seed;
  for (int64_t idx = 0; idx < prompt_tokens; ++idx) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    request->prompt.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocab_size)));
  }
  request->stop.max_tokens = max_tokens;
  request->stop.ignore_eos = true;
  request->sampling.seed = seed;
  return request;
}

struct Stream {
  std::shared_ptr<EventStream> events;
  std::vector<int32_t> tokens;
  std::vector<double> times;  // of arrival
  bool done = false;
};

void Drain(Stream* stream, double now) {
  for (Event event; stream->events->TryNext(&event);) {
    if (event.kind == Event::Kind::kDone) stream->done = true;
    if (event.kind != Event::Kind::kToken) continue;
    stream->tokens.push_back(event.token);
    stream->times.push_back(now);
  }
}

class Bench {
 public:
  Bench(const Flags& flags, Model* model) : flags_(flags), model_(model) {}

  // Seconds of steps that hold nothing but a full budget of prompt rows, long past the switch-over.
  std::vector<double> FullSteps() {
    auto engine = MakeEngine();
    Stream prompt = Submit(engine.get(), flags_.prompt_tokens, 1, 1);
    std::vector<double> seconds;
    while (!prompt.done) {
      const int64_t before = engine->stats().prefill_tokens.load();
      const double start = Now();
      engine->RunStep();
      const double end = Now();
      if (engine->stats().prefill_tokens.load() - before == flags_.budget) seconds.push_back(end - start);
      Drain(&prompt, end);
      if (seconds.size() >= 40) prompt.events->Cancel();
    }
    return seconds;
  }

  // Runs the streams; with_prompt: a long prompt arrives once all of them decode, and they run until it is through.
  // Without it they run for `steps` steps. Returns the streams; `*long_prompt` the times of submission and first token.
  std::vector<Stream> RunStreams(bool with_prompt, int64_t steps, std::pair<double, double>* long_prompt) {
    auto engine = MakeEngine();
    std::vector<Stream> streams;
    for (int64_t idx = 0; idx < flags_.streams; ++idx) {
      streams.push_back(Submit(engine.get(), 64, int64_t{1} << 40, 100 + static_cast<uint64_t>(idx)));
    }
    const auto step = [&] {
      engine->RunStep();
      for (Stream& stream : streams) Drain(&stream, Now());
    };
    while (std::any_of(streams.begin(), streams.end(), [](const Stream& stream) { return stream.tokens.empty(); }))
      step();
    if (!with_prompt) {
      for (int64_t count = 0; count < steps; ++count) step();
      return streams;
    }
    long_prompt->first = Now();
    Stream prompt = Submit(engine.get(), flags_.prompt_tokens, 1, 1);
    while (!prompt.done) {
      step();
      Drain(&prompt, Now());
    }
    long_prompt->second = prompt.times.at(0);
    return streams;
  }

 private:
  std::unique_ptr<Engine> MakeEngine() {
    EngineOptions options;
    options.max_num_seqs = flags_.streams + 1;
    options.max_num_batched_tokens = flags_.budget;
    auto engine = Engine::Create(model_, nullptr, options);
    if (!engine.ok()) {
      std::fprintf(stderr, "%s\n", engine.status().ToString().c_str());
      std::exit(1);
    }
    return std::move(*engine);
  }
  Stream Submit(Engine* engine, int64_t prompt_tokens, int64_t max_tokens, uint64_t seed) {
    const int32_t vocab_size = static_cast<int32_t>(model_->config().vocab_size);
    auto events = engine->Submit(MakeRequest(prompt_tokens, max_tokens, vocab_size, seed));
    if (!events.ok()) {
      std::fprintf(stderr, "%s\n", events.status().ToString().c_str());
      std::exit(1);
    }
    Stream stream;
    stream.events = std::move(*events);
    return stream;
  }

  const Flags flags_;
  Model* const model_;
};

int Run(const Flags& flags) {
  kernels::ThreadPool pool(flags.threads);
  LoadOptions load;
  load.dummy = flags.dummy;
  auto model = LoadModel(flags.model, load, &pool);
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.status().ToString().c_str());
    return 1;
  }
  Bench bench(flags, model->get());
  std::pair<double, double> prompt;
  const std::vector<Stream> streams = bench.RunStreams(true, 0, &prompt);
  const std::vector<Stream> calm = bench.RunStreams(false, 50, nullptr);
  const std::vector<double> full_steps = bench.FullSteps();

  for (size_t idx = 0; idx < streams.size(); ++idx) {
    const size_t common = std::min(streams[idx].tokens.size(), calm[idx].tokens.size());
    if (!std::equal(streams[idx].tokens.begin(), streams[idx].tokens.begin() + static_cast<int64_t>(common),
                    calm[idx].tokens.begin())) {
      std::fprintf(stderr, "stream %zu got other tokens beside the long prompt\n", idx);
      return 1;
    }
  }
  const auto gaps_of = [&](const std::vector<Stream>& from, double begin, double end) {
    std::vector<double> gaps;
    for (const Stream& stream : from) {
      for (size_t idx = 1; idx < stream.times.size(); ++idx) {
        if (stream.times[idx - 1] >= begin && stream.times[idx] <= end) {
          gaps.push_back(stream.times[idx] - stream.times[idx - 1]);
        }
      }
    }
    return gaps;
  };
  const std::vector<double> gaps = gaps_of(streams, prompt.first, prompt.second);
  const std::vector<double> calm_gaps = gaps_of(calm, 0, 1e18);
  if (full_steps.size() < 20 || gaps.empty()) {
    std::fprintf(stderr, "too few steps to measure: use a longer prompt or a smaller budget\n");
    return 1;
  }
  const double full_step = Quantile(full_steps, 0.5);
  const double p99 = Quantile(gaps, 0.99);
  std::printf("%s%s, %d threads, %ld streams, prompt %ld tokens, budget %ld rows\n", flags.model.c_str(),
              flags.dummy ? " (dummy weights)" : "", pool.num_threads(), static_cast<long>(flags.streams),
              static_cast<long>(flags.prompt_tokens), static_cast<long>(flags.budget));
  std::printf("prefill beside the streams   %10.2f s, %.0f tokens/s\n", prompt.second - prompt.first,
              static_cast<double>(flags.prompt_tokens) / (prompt.second - prompt.first));
  std::printf("full-budget step             %10.2f ms median, %.2f min, of %zu\n", full_step * 1e3,
              Quantile(full_steps, 0) * 1e3, full_steps.size());
  std::printf("gap, streams alone           %10.2f ms median, %.2f p99\n", Quantile(calm_gaps, 0.5) * 1e3,
              Quantile(calm_gaps, 0.99) * 1e3);
  std::printf("gap, beside the long prompt  %10.2f ms median, %.2f p90, %.2f p99, %.2f max, of %zu\n",
              Quantile(gaps, 0.5) * 1e3, Quantile(gaps, 0.9) * 1e3, p99 * 1e3, Quantile(gaps, 1) * 1e3, gaps.size());
  std::printf("p99 gap / full-budget step   %10.2f   (target: at most 1.5)\n", p99 / full_step);
  return p99 / full_step <= 1.5 ? 0 : 2;
}

}  // namespace
}  // namespace statehouse

int main(int argc, char** argv) {
  statehouse::Flags flags;
  if (!statehouse::ParseFlags(argc, argv, &flags)) {
    std::fprintf(stderr,
                 "usage: engine_fairness_bench --model DIR [--dummy] [--prompt-tokens N] [--streams N] [--budget N] "
                 "[--threads N]\n");
    return 1;
  }
  return statehouse::Run(flags);
}
