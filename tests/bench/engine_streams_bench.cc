// What the engine adds to bare steps of the model: the rate of many streams that decode together, each read by a thread
// of its own, beside the same steps without an engine. Weights are random, from config.json alone.
//
//   engine_streams_bench DIR [--device cuda] [--streams 64] [--prompt 512] [--tokens 256] [--top-p 1]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "kernels/parallel/thread_pool.h"
#include "models/model.h"
#include "tests/bench/bench_flags.h"

namespace statehouse {
namespace {

struct Flags {
  std::string dir;
  std::string device = "cuda";
  int64_t streams = 64;
  int64_t prompt = 512;
  int64_t tokens = 256;
  double top_p = 1;
};

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

Flags Parse(int argc, char** argv) {
  Flags flags;
  BenchFlags parser(
      "engine_streams_bench DIR [--device cuda] [--streams 64] [--prompt 512] [--tokens 256] [--top-p 1]");
  parser.Add("--device", &flags.device), parser.Add("--streams", &flags.streams);
  parser.Add("--prompt", &flags.prompt), parser.Add("--tokens", &flags.tokens), parser.Add("--top-p", &flags.top_p);
  if (argc < 2) parser.Fail("a folder with a config.json is wanted");
  flags.dir = argv[1];
  parser.Parse(argc, argv, 2);
  if (flags.tokens <= 8) parser.Fail("--tokens must be above 8: the first ones are not measured");
  return flags;
}

int32_t TokenAt(const Model& model, int64_t i) { return static_cast<int32_t>(i * 7919 % model.config().vocab_size); }

constexpr int64_t kPromptRows = 2048;  // per step of the engine

// Tokens that the engine's streams generate: more than are measured, since all must run from the last one's first token
// on until the first one's last.
int64_t AnswerTokens(const Flags& flags) { return flags.tokens + 2 * flags.streams; }

// Tokens per second of bare steps over the positions that the engine's streams have on average while all of them
// decode, logits left where they are; or with tokens chosen by the model.
double BareRate(Model* model, const Flags& flags, bool chooses) {
  Check(model->Reserve(std::max<int64_t>(flags.prompt, 512), flags.streams + 32));
  auto slots = model->AllocateSlots((model->slot_floats() * 4 + 127) / 128 * 128, flags.streams);
  Check(slots.status());
  std::vector<int32_t> tokens(std::max(flags.prompt, flags.streams)), rows;
  std::vector<StepSequence> sequences;
  for (int64_t i = 0; i < flags.streams; ++i) {
    for (int64_t t = 0; t < flags.prompt; ++t) tokens[t] = TokenAt(*model, i + t);
    const StepSequence prompt = {(*slots)->slot(i), 0, 0, static_cast<int32_t>(flags.prompt)};
    Check(model->Forward({{tokens.data(), static_cast<size_t>(flags.prompt)}, {&prompt, 1}, {}}, {}));
    sequences.push_back({(*slots)->slot(i), flags.prompt, static_cast<int32_t>(i), 1});
    rows.push_back(static_cast<int32_t>(i));
  }
  std::vector<LogitUse> uses(flags.streams);
  std::vector<int32_t> chosen(flags.streams);
  for (LogitUse& use : uses) use = {.copies = false, .chooses = true, .choice = {}};
  for (LogitUse& use : uses) use.choice.top_p = flags.top_p;
  // The first of the engine's streams are ahead by the steps that the others' prompts take.
  const int64_t skipped = std::max<int64_t>(8, flags.streams * flags.prompt / kPromptRows / 2);
  const int64_t end = AnswerTokens(flags) - skipped;
  double start = 0;
  for (int64_t step = 0; step < end; ++step) {
    if (step == skipped) start = Now();
    for (int64_t i = 0; i < flags.streams; ++i) tokens[i] = TokenAt(*model, i + step);
    const StepBatch batch = {{tokens.data(), static_cast<size_t>(flags.streams)}, sequences, rows};
    if (chooses) {
      Check(model->BeginForward(batch, {{}, uses, chosen}));
      Check(model->EndForward());
    } else {
      Check(model->Forward(batch, {}));
    }
    for (StepSequence& sequence : sequences) ++sequence.position;
  }
  return static_cast<double>((end - skipped) * flags.streams) / (Now() - start);
}

// Tokens per second while all streams decode.
double EngineRate(Model* model, const Flags& flags) {
  auto engine = Engine::Create(model, nullptr, {.max_num_seqs = flags.streams, .max_num_batched_tokens = kPromptRows});
  Check(engine.status());
  std::vector<std::vector<double>> times(flags.streams);
  std::vector<std::thread> readers;
  (*engine)->Start();
  for (int64_t i = 0; i < flags.streams; ++i) {
    auto request = std::make_unique<Request>();
    for (int64_t t = 0; t < flags.prompt; ++t) request->prompt.push_back(TokenAt(*model, i + t));
    request->stop.max_tokens = AnswerTokens(flags);
    request->stop.ignore_eos = true;
    request->sampling.seed = static_cast<uint64_t>(i);
    request->sampling.top_p = flags.top_p;
    auto stream = (*engine)->Submit(std::move(request));
    Check(stream.status());
    readers.emplace_back([events = *stream, &mine = times[i]] {
      for (Event event; events->Next(&event) && event.kind != Event::Kind::kDone;) {
        if (event.kind == Event::Kind::kToken) mine.push_back(Now());
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  double begin = 0, end = 1e300;
  for (const std::vector<double>& mine : times) {
    if (mine.empty()) Check(absl::InternalError("a stream without a token"));
    begin = std::max(begin, mine.front());
    end = std::min(end, mine.back());
  }
  int64_t count = 0;
  for (const std::vector<double>& mine : times) {
    count += std::count_if(mine.begin(), mine.end(), [&](double time) { return time > begin && time <= end; });
  }
  const Histogram& decode = (*engine)->stats().step_decode_seconds;
  std::printf("engine: %lld decode steps of %.3f ms, %.2f s with all streams decoding\n",
              static_cast<long long>(decode.count()), decode.sum() / static_cast<double>(decode.count()) * 1e3,
              end - begin);
  return static_cast<double>(count) / (end - begin);
}

}  // namespace
}  // namespace statehouse

int main(int argc, char** argv) {
  using namespace statehouse;  // NOLINT: main
  const Flags flags = Parse(argc, argv);
  kernels::ThreadPool pool(0);
  LoadOptions options;
  options.dummy = true;
  options.device = flags.device;
  auto model = LoadModel(flags.dir, options, &pool);
  Check(model.status());
  const double bare = BareRate(model->get(), flags, false);
  if ((*model)->chooses_tokens()) {
    std::printf("bare steps that choose: %.1f %% of bare ones\n", BareRate(model->get(), flags, true) / bare * 100);
  }
  const double engine = EngineRate(model->get(), flags);
  std::printf("%s, %lld streams, prompt %lld: bare %.0f tok/s, engine %.0f tok/s, %.1f %% of it\n",
              (*model)->device_name().c_str(), static_cast<long long>(flags.streams),
              static_cast<long long>(flags.prompt), bare, engine, engine / bare * 100);
  return 0;
}
