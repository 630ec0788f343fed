// Requests that share beginnings through the prefix cache, on real models: whatever is restored, evicted, spilled and
// taken back, and whoever else runs, the bits are those of each request computed alone from scratch.
// STATEHOUSE_SOAK_SECONDS sets how long.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "absl/strings/str_cat.h"
#include "engine/state/prefix_cache.h"
#include "kernels/parallel/thread_pool.h"
#include "models/model.h"
#include "tests/engine/engine_fixture.h"
#include "tests/support/fake_vault.h"

namespace statehouse::testing {
namespace {

using Tokens = std::vector<int32_t>;

Tokens Join(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class PrefixBitsTest : public ::testing::Test {
 protected:
  static constexpr int32_t kVocab = 300;

  std::unique_ptr<Request> RandomRequest(std::mt19937* random, const std::vector<Tokens>& roots) {
    std::mt19937& draw = *random;
    Tokens prompt = roots[draw() % roots.size()];
    // Parting anywhere, or where others part too.
    const size_t size = prompt.size();
    prompt.resize(draw() % 2 == 0 ? 1 + draw() % size : std::max<size_t>(1, size * (1 + draw() % 4) / 4));
    if (draw() % 4 != 0) prompt = Join(std::move(prompt), MakePrompt(1 + draw() % 40, draw() % 6, kVocab));
    auto request = MakeRequest(std::move(prompt), 1 + draw() % 24);
    request->sampling.seed = draw();
    request->sampling.temperature = draw() % 4 == 0 ? 0 : 1.1;
    if (draw() % 3 == 0) request->sampling.repetition_penalty = 1.2;
    if (draw() % 3 == 0) request->sampling.presence_penalty = 0.5;
    request->num_logprobs = 2;
    request->n = draw() % 4 == 0 ? 1 + draw() % 3 : 1;
    request->priority = static_cast<int32_t>(draw() % 3);
    return request;
  }

  static ReadStream Alone(Model* model, const Request& request) {
    auto engine = Engine::Create(model, nullptr, {.max_num_seqs = 3, .max_num_batched_tokens = 512}).value();
    auto stream = engine->Submit(std::make_unique<Request>(request)).value();
    ReadStream read;
    while (!read.done) {
      engine->RunStep();
      Drain(stream.get(), &read);
    }
    return read;
  }

  struct Running {
    Request request;
    std::unique_ptr<PrefixCache::Use> use;
    std::shared_ptr<EventStream> stream;
    ReadStream read;
  };

  // Returns the tokens that were restored.
  int64_t RunWorkload(Model* model, uint32_t seed, int num_requests) {
    std::mt19937 random(seed);
    auto engine = Engine::Create(model, nullptr,
                                 {.max_num_seqs = 1 + static_cast<int64_t>(random() % 5),
                                  .max_num_batched_tokens = random() % 2 == 0 ? 16 : 200})
                      .value();
    const int64_t snapshot_bytes = engine->GetStatus().slot_bytes;
    FakeVault vault;
    PrefixCache cache({.memory_bytes = snapshot_bytes * (random() % 2 == 0 ? 12 : 100),
                       .vault = random() % 2 == 0 ? &vault : nullptr},
                      *model);
    std::vector<Tokens> roots;
    for (int root = 0; root < 4; ++root) roots.push_back(MakePrompt(30 + random() % 220, 50 + root, kVocab));
    std::vector<std::unique_ptr<Running>> running;
    int64_t cached_tokens = 0;
    for (int submitted = 0; submitted < num_requests || !running.empty();) {
      if (submitted < num_requests && random() % 3 != 0) {
        auto next = std::make_unique<Running>();
        auto request = RandomRequest(&random, roots);
        next->request = *request;
        const int64_t size = static_cast<int64_t>(request->prompt.size());
        const std::vector<int64_t> points = {1 + static_cast<int64_t>(random() % size)};
        next->use = cache.Begin(
            {.points = std::span<const int64_t>(points).first(random() % 2), .will_go_on = random() % 2 == 0},
            request.get());
        next->stream = engine->Submit(std::move(request)).value();
        running.push_back(std::move(next));
        ++submitted;
      }
      engine->RunStep();
      for (size_t idx = 0; idx < running.size();) {
        Running& one = *running[idx];
        Drain(one.stream.get(), &one.read);
        if (!one.read.done) {
          ++idx;
          continue;
        }
        EXPECT_TRUE(SameBits(one.read, Alone(model, one.request)));
        EXPECT_EQ(one.stream->usage().cached_tokens, one.use->report().cached_tokens);
        cached_tokens += one.stream->usage().cached_tokens;
        if (HasFailure()) {
          ADD_FAILURE() << "seed " << seed << ", prompt of " << one.request.prompt.size() << ": "
                        << one.use->report().Explanation();
          return cached_tokens;
        }
        one.use->Keep(one.use->wants_answer() ? one.read.outputs[0].tokens : Tokens());
        // What was answered may come again, as the beginning of a longer prompt.
        if (random() % 4 == 0) {
          roots[random() % roots.size()] = Join(one.request.prompt, one.read.outputs[0].tokens);
        }
        running.erase(running.begin() + static_cast<ptrdiff_t>(idx));
      }
    }
    return cached_tokens;
  }
};

TEST_F(PrefixBitsTest, RandomWorkloadsWithBatchMates_GiveTheBitsOfRequestsComputedAlone) {
  const char* soak = std::getenv("STATEHOUSE_SOAK_SECONDS");
  const int soak_seconds = soak != nullptr ? std::atoi(soak) : 0;
  kernels::ThreadPool pool(2);
  int64_t requests = 0, cached_tokens = 0;
  for (const char* golden : {"powercoder-tiny", "brumby-tiny"}) {
    for (const int64_t switch_over : {int64_t{0}, int64_t{48}, kernels::kSwitchOverAuto}) {
      LoadOptions load;
      load.chunk = 16;
      load.switch_over = switch_over;
      auto model = LoadModel(absl::StrCat(STATEHOUSE_SOURCE_DIR "/tests/golden/models/", golden), load, &pool);
      ASSERT_TRUE(model.ok()) << model.status();
      const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(soak_seconds) / 6;
      for (uint32_t seed = 1; seed <= 2 || std::chrono::steady_clock::now() < until; ++seed) {
        SCOPED_TRACE(absl::StrCat(golden, ", switch-over ", switch_over));
        cached_tokens += RunWorkload(model->get(), seed, 60);
        requests += 60;
        if (HasFailure()) return;
      }
    }
  }
  std::printf("%lld requests, %lld prompt tokens restored, all bits those of requests computed alone\n",
              static_cast<long long>(requests), static_cast<long long>(cached_tokens));
  EXPECT_GT(cached_tokens, 10 * requests) << "the workloads shared too little to prove anything";
}

}  // namespace
}  // namespace statehouse::testing
