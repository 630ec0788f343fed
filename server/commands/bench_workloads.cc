// Prompts that begin alike, one request after another: what the prefix cache restores and what that does to the first
// token, beside the same requests without it and with one that keeps what was used last.
#include <algorithm>
#include <random>
#include <utility>

#include "engine/engine.h"
#include "engine/state/prefix_cache.h"
#include "server/commands/bench.h"  // SteadySeconds
#include "server/commands/bench_sessions.h"

namespace statehouse {
namespace {

using Tokens = std::vector<int32_t>;

constexpr int64_t kAnswerTokens = 24;

Tokens Draw(std::mt19937* random, int64_t count, int64_t vocab_size) {
  Tokens tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>((*random)() % static_cast<uint64_t>(vocab_size));
  return tokens;
}

void Append(Tokens* to, const Tokens& more) { to->insert(to->end(), more.begin(), more.end()); }

// What a workload asks next, given what was answered last.
class Workload {
 public:
  virtual ~Workload() = default;
  virtual const char* name() const = 0;
  virtual bool will_go_on() const = 0;
  virtual Tokens NextPrompt() = 0;
  virtual void Answered(const Tokens& answer) = 0;
};

// Many users of a dozen system prompts, popularity falling as 1 / rank.
class SharedPrefixes final : public Workload {
 public:
  explicit SharedPrefixes(int64_t vocab_size) : vocab_size_(vocab_size) {
    for (int rank = 1; rank <= 12; ++rank) {
      systems_.push_back(Draw(&random_, 200 + static_cast<int64_t>(random_() % 2800), vocab_size));
      popularity_.push_back(1.0 / rank);
    }
  }
  const char* name() const override { return "shared prefixes"; }
  bool will_go_on() const override { return false; }
  Tokens NextPrompt() override {
    std::discrete_distribution<size_t> pick(popularity_.begin(), popularity_.end());
    Tokens prompt = systems_[pick(random_)];
    Append(&prompt, Draw(&random_, 20 + static_cast<int64_t>(random_() % 100), vocab_size_));
    return prompt;
  }
  void Answered(const Tokens&) override {}

 private:
  const int64_t vocab_size_;
  std::mt19937 random_{1};
  std::vector<Tokens> systems_;
  std::vector<double> popularity_;
};

// Conversations of one service that come back turn by turn, some soon and some late.
class Conversations final : public Workload {
 public:
  explicit Conversations(int64_t vocab_size)
      : vocab_size_(vocab_size), system_(Draw(&random_, 400, vocab_size)), talks_(20, system_) {}
  const char* name() const override { return "conversations"; }
  bool will_go_on() const override { return true; }
  Tokens NextPrompt() override {
    current_ = std::min(random_() % talks_.size(), random_() % talks_.size());
    if (talks_[current_].size() > 6000) talks_[current_] = system_;
    Append(&talks_[current_], Draw(&random_, 20 + static_cast<int64_t>(random_() % 200), vocab_size_));
    return talks_[current_];
  }
  void Answered(const Tokens& answer) override { Append(&talks_[current_], answer); }

 private:
  const int64_t vocab_size_;
  std::mt19937 random_{2};
  const Tokens system_;
  std::vector<Tokens> talks_;
  size_t current_ = 0;
};

struct Policy {
  const char* name;
  bool has_cache;
  double efficiency_weight;
};
const Policy kPolicies[] = {{"no cache", false, 0},
                            {"least recently used", true, 0},
                            {"prefix cache", true, PrefixCacheOptions().efficiency_weight}};

absl::StatusOr<WorkloadFigure> Serve(Engine* engine, PrefixCache* cache, Workload* workload, int64_t requests,
                                     const std::function<void(int64_t)>& on_request) {
  WorkloadFigure figure;
  figure.name = workload->name();
  std::vector<double> first_tokens;
  for (; figure.requests < requests; ++figure.requests) {
    on_request(figure.requests);
    auto request = std::make_unique<Request>();
    request->prompt = workload->NextPrompt();
    request->sampling.seed = static_cast<uint64_t>(figure.requests);
    request->stop.max_tokens = kAnswerTokens;
    request->stop.ignore_eos = true;
    const double start = SteadySeconds();
    std::unique_ptr<PrefixCache::Use> use;
    if (cache != nullptr) use = cache->Begin({.will_go_on = workload->will_go_on()}, request.get());
    auto stream = engine->Submit(std::move(request));
    if (!stream.ok()) return stream.status();
    Tokens answer;
    for (bool done = false; !done;) {
      engine->RunStep();
      for (Event event; (*stream)->TryNext(&event);) {
        if (event.kind == Event::Kind::kToken && answer.empty()) first_tokens.push_back(SteadySeconds() - start);
        if (event.kind == Event::Kind::kToken) answer.push_back(event.token);
        done = done || event.kind == Event::Kind::kDone;
      }
    }
    if (!(*stream)->status().ok()) return (*stream)->status();
    figure.prompt_tokens += (*stream)->usage().prompt_tokens;
    figure.cached_tokens += (*stream)->usage().cached_tokens;
    if (use != nullptr) use->Keep(use->wants_answer() ? answer : Tokens());
    workload->Answered(answer);
  }
  std::sort(first_tokens.begin(), first_tokens.end());
  figure.first_token_p50 = first_tokens[first_tokens.size() / 2];
  figure.first_token_p95 = first_tokens[first_tokens.size() * 95 / 100];
  return figure;
}

}  // namespace

absl::StatusOr<std::vector<WorkloadFigure>> MeasureWorkloads(Model* model, const SessionsBenchOptions& options,
                                                             const SessionsBenchObserver& observer) {
  std::vector<WorkloadFigure> figures;
  auto engine = Engine::Create(model, nullptr, {.max_num_seqs = 2, .max_num_batched_tokens = options.step_tokens});
  if (!engine.ok()) return engine.status();
  const int64_t memory_bytes = options.cache_states * (*engine)->GetStatus().slot_bytes;
  for (const bool is_shared : {true, false}) {
    for (const Policy& policy : kPolicies) {
      // The same requests for each policy.
      std::unique_ptr<Workload> workload;
      if (is_shared) {
        workload = std::make_unique<SharedPrefixes>(model->config().vocab_size);
      } else {
        workload = std::make_unique<Conversations>(model->config().vocab_size);
      }
      std::unique_ptr<PrefixCache> cache;
      if (policy.has_cache) {
        cache = std::make_unique<PrefixCache>(
            PrefixCacheOptions{.memory_bytes = memory_bytes, .efficiency_weight = policy.efficiency_weight}, *model);
      }
      const auto show = [&](int64_t done) {
        if (observer.on_progress) observer.on_progress(workload->name(), done, options.requests);
      };
      auto figure = Serve(engine->get(), cache.get(), workload.get(), options.requests, show);
      if (!figure.ok()) return figure.status();
      figure->policy = policy.name;
      figures.push_back(*std::move(figure));
    }
  }
  return figures;
}

}  // namespace statehouse
