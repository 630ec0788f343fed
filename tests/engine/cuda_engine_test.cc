// The engine on a GPU: in deterministic mode the bits of a request do not depend on company, forks or snapshots, and a
// snapshot made on one device goes on on the other.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "engine/state/fingerprint.h"
#include "tests/engine/tiny_model.h"
#include "tests/support/gpu.h"

namespace statehouse::testing {
namespace {

constexpr int64_t kSwitchOver = 64;

ReadStream Finish(Engine* engine, EventStream* stream) {
  ReadStream read;
  for (int step = 0; !read.done && step < 100000; ++step) {
    engine->RunStep();
    Drain(stream, &read);
  }
  EXPECT_TRUE(read.done);
  return read;
}

class CudaEngine : public ::testing::Test {
 protected:
  void SetUp() override { HasGpu(); }
  std::unique_ptr<Engine> MakeEngine(Model* model, int64_t slots, int64_t rows) {
    auto engine = Engine::Create(model, &vocabulary_, {.max_num_seqs = slots, .max_num_batched_tokens = rows});
    EXPECT_TRUE(engine.ok()) << engine.status();
    return engine.ok() ? *std::move(engine) : nullptr;
  }

  kernels::ThreadPool pool_{2};
  const FakeVocabulary vocabulary_ = LetterVocabulary(kTinyVocab);
};

TEST_F(CudaEngine, RequestAmongOthers_GetsTheBitsItGetsAlone) {
  const auto model = LoadTiny(&pool_, kSwitchOver, "cuda");
  ASSERT_NE(model, nullptr);
  for (const int64_t prompt_size : {30, 100}) {
    ReadStream alone;
    {
      auto engine = MakeEngine(model.get(), 2, 512);
      alone = Finish(engine.get(), engine->Submit(MakeProbe(prompt_size)).value().get());
    }
    std::mt19937 random(7);
    auto engine = MakeEngine(model.get(), 6, 23);
    std::vector<std::shared_ptr<EventStream>> others;
    for (int i = 0; i < 12; ++i) {
      auto other = MakeRequest(MakePrompt(1 + random() % 150, random(), kTinyVocab), 1 + random() % 60);
      others.push_back(engine->Submit(std::move(other)).value());
    }
    const auto probe = engine->Submit(MakeProbe(prompt_size)).value();
    ReadStream among;
    for (int step = 0; !among.done && step < 100000; ++step) {
      if (step == 20) others[3]->Cancel();
      engine->RunStep();
      for (const auto& other : others) {
        for (Event event; other->TryNext(&event);) {
        }
      }
      Drain(probe.get(), &among);
    }
    EXPECT_TRUE(SameBits(among, alone));
  }
}

// A bias of nothing makes the host choose.
TEST_F(CudaEngine, TokensChosenOnTheGpu_AreThoseThatTheHostChooses) {
  const auto model = LoadTiny(&pool_, kSwitchOver, "cuda");
  ASSERT_NE(model, nullptr);
  for (const double temperature : {0.0, 0.8, 2.0}) {
    for (const double top_p : {1.0, 0.9}) {
      ReadStream read[2];
      for (const bool on_host : {false, true}) {
        auto request = MakeRequest(MakePrompt(70, 3, kTinyVocab), 80);
        request->sampling.temperature = temperature;
        request->sampling.top_p = top_p;
        request->sampling.top_k = 100;
        request->stop.ignore_eos = true;
        if (on_host) request->sampling.logit_bias = {{7, 0.0f}};
        auto engine = MakeEngine(model.get(), 2, 64);
        read[on_host] = Finish(engine.get(), engine->Submit(std::move(request)).value().get());
      }
      EXPECT_EQ(read[0].outputs[0].tokens, read[1].outputs[0].tokens) << temperature << ", " << top_p;
      EXPECT_EQ(read[0].outputs[0].tokens.size(), 80u);
    }
  }
}

// Log probabilities are formed on the host, so that no step is queued ahead. Ends by stop tokens come as a surprise.
TEST_F(CudaEngine, StreamsThatRunAhead_GetTheBitsOfThoseThatDoNot) {
  const auto model = LoadTiny(&pool_, kSwitchOver, "cuda");
  ASSERT_NE(model, nullptr);
  ASSERT_TRUE(model->queues_ahead());
  const SlotShape shape{model->retention(), model->config().num_layers};
  int64_t num_stopped = 0;
  std::vector<ReadStream> reads[2];
  std::vector<std::shared_ptr<const Snapshot>> ends[2];
  for (const bool ahead : {false, true}) {
    auto engine = MakeEngine(model.get(), 8, 512);
    std::vector<std::shared_ptr<EventStream>> streams;
    std::vector<std::shared_ptr<SnapshotDraft>> drafts;
    for (int32_t seed = 0; seed < 8; ++seed) {
      auto request = MakeRequest(MakePrompt(3 + 11 * seed, seed, kTinyVocab), 90);
      request->sampling.seed = static_cast<uint64_t>(seed);
      for (int32_t token = 0; token < 6; ++token) request->stop.stop_token_ids.push_back(token * 40 + seed);
      drafts.push_back(SnapshotDraft::Reserve(shape, kTinyVocab).value());
      if (seed % 2 == 0) request->snapshots = {{SnapshotOrder::kAtEnd, drafts.back()}};
      if (!ahead) request->num_logprobs = 0;
      streams.push_back(engine->Submit(std::move(request)).value());
    }
    for (size_t i = 0; i < streams.size(); ++i) {
      reads[ahead].push_back(Finish(engine.get(), streams[i].get()));
      const ReadOutput& output = reads[ahead][i].outputs[0];
      num_stopped += output.end.reason == FinishReason::kStop ? 1 : 0;
      std::vector<int32_t> tokens = MakePrompt(3 + 11 * static_cast<int64_t>(i), static_cast<int32_t>(i), kTinyVocab);
      tokens.insert(tokens.end(), output.tokens.begin(), output.tokens.end());
      ends[ahead].push_back(i % 2 == 0 ? drafts[i]->Seal(tokens) : nullptr);
    }
  }
  EXPECT_GT(num_stopped, 4);
  for (size_t i = 0; i < reads[0].size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(reads[true][i].outputs[0].tokens, reads[false][i].outputs[0].tokens);
    if (i % 2 != 0) continue;
    ASSERT_TRUE(ends[0][i] != nullptr && ends[1][i] != nullptr);
    EXPECT_EQ(ends[true][i]->position(), ends[false][i]->position());
    EXPECT_TRUE(std::ranges::equal(ends[true][i]->logits(), ends[false][i]->logits()));
    ReadStream went_on[2];
    for (const bool ahead : {false, true}) {
      auto request = MakeRequest({ends[ahead][i]->tokens().begin(), ends[ahead][i]->tokens().end()}, 40);
      request->prompt.push_back(7);
      request->from = ends[ahead][i];
      request->num_logprobs = 1;
      request->stop.ignore_eos = true;
      auto engine = MakeEngine(model.get(), 2, 64);
      went_on[ahead] = Finish(engine.get(), engine->Submit(std::move(request)).value().get());
    }
    EXPECT_TRUE(SameBits(went_on[true], went_on[false]));
  }
}

TEST_F(CudaEngine, SnapshotsGoOnExactlyHere_AndContinuedOnTheCpu) {
  const auto gpu = LoadTiny(&pool_, kSwitchOver, "cuda"), cpu = LoadTiny(&pool_, kSwitchOver, "cpu");
  ASSERT_TRUE(gpu != nullptr && cpu != nullptr);
  const Fingerprint here = Fingerprint::Of(*gpu, 0), there = Fingerprint::Of(*cpu, 0);
  EXPECT_TRUE(CheckIdentity(here.identity, there.identity).ok());
  EXPECT_NE(NumericDifference(here.numeric, there.numeric), "");
  for (const int64_t position : {10, 64, 90}) {
    SCOPED_TRACE(position);
    const std::vector<int32_t> prompt = MakePrompt(100, 5, kTinyVocab);
    const auto request = [&](std::shared_ptr<const Snapshot> from) {
      auto made = MakeRequest(prompt, 30);
      made->sampling.temperature = 0;
      made->stop.ignore_eos = true;
      made->num_logprobs = 1;
      made->from = std::move(from);
      return made;
    };
    const auto save_and_finish = [&](Model* model, std::shared_ptr<const Snapshot>* saved) {
      auto engine = MakeEngine(model, 2, 32);
      const SlotShape shape = {model->retention(), model->config().num_layers};
      // On the GPU page-locked where it is long enough; on the CPU there is nothing to lock for.
      const auto memory = SnapshotMemory::Make({.block_bytes = shape.bytes(), .num_blocks = 1}, model->page_locker());
      auto draft = SnapshotDraft::Reserve(shape, kTinyVocab, memory.get(), position).value();
      auto made = request(nullptr);
      made->snapshots = {{position, draft}};
      ReadStream read = Finish(engine.get(), engine->Submit(std::move(made)).value().get());
      EXPECT_TRUE(draft->filled());
      *saved = draft->Seal(prompt);
      return read;
    };
    const auto go_on = [&](Model* model, const std::shared_ptr<const Snapshot>& from) {
      auto engine = MakeEngine(model, 2, 32);
      return Finish(engine.get(), engine->Submit(request(from)).value().get());
    };
    std::shared_ptr<const Snapshot> from_gpu, from_cpu;
    const ReadStream on_gpu = save_and_finish(gpu.get(), &from_gpu), on_cpu = save_and_finish(cpu.get(), &from_cpu);
    EXPECT_EQ(from_gpu->is_page_locked(), position >= kSwitchOver);
    EXPECT_FALSE(from_cpu->is_page_locked());
    EXPECT_TRUE(SameBits(go_on(gpu.get(), from_gpu), on_gpu));
    EXPECT_EQ(go_on(cpu.get(), from_gpu).outputs[0].tokens, on_cpu.outputs[0].tokens);
    EXPECT_EQ(go_on(gpu.get(), from_cpu).outputs[0].tokens, on_cpu.outputs[0].tokens);
  }
}

// Sizes around those of the places that copies go through, and more than all of them hold; places are passed by where
// host memory is page-locked.
TEST_F(CudaEngine, SlotMemory_GivesBackWhatWasWrittenWhateverItsSize) {
  const auto model = LoadTiny(&pool_, kSwitchOver, "cuda");
  ASSERT_NE(model, nullptr);
  constexpr int64_t kStretch = 1 << 14, kPlace = 1 << 18, kMost = 3 << 22;
  const auto slots = model->AllocateSlots(kMost * sizeof(float), 2).value();
  std::vector<float> sent(kMost), received(kMost);
  std::mt19937 random(3);
  for (float& x : sent) x = static_cast<float>(random());
  int64_t start = 0;
  const auto locker = model->page_locker();
  for (const bool locked : {false, true}) {
    SCOPED_TRACE(locked);
    for (std::vector<float>* host : {&sent, &received}) {
      const absl::Status status = locked ? locker->Lock(std::as_writable_bytes(std::span(*host))) : absl::OkStatus();
      ASSERT_TRUE(status.ok()) << status;
    }
    for (const int64_t size : {int64_t{1}, kStretch - 1, kStretch + 1, kPlace, kPlace + 5, 7 * kPlace + 3, kMost}) {
      for (const int slot : {0, 1}) slots->Write(sent.data() + start, slots->slot(slot) + start, size);
      for (const int slot : {0, 1}) {
        std::fill(received.begin(), received.end(), -1.0f);
        slots->Read(slots->slot(slot) + start, received.data(), size);
        EXPECT_TRUE(std::equal(received.begin(), received.begin() + size, sent.begin() + start)) << size;
        if (size < kMost) {
          EXPECT_EQ(received[size], -1.0f);
        }
      }
      start = size < kPlace ? start + 11 : 0;  // not aligned either
    }
  }
  for (std::vector<float>* host : {&sent, &received}) locker->Unlock(std::as_writable_bytes(std::span(*host)));
  EXPECT_TRUE(slots->status().ok()) << slots->status();
}

TEST_F(CudaEngine, SlotsThatDoNotFit_AreRefusedWithTheBytes) {
  const auto model = LoadTiny(&pool_, kSwitchOver, "cuda");
  ASSERT_NE(model, nullptr);
  const auto slots = model->AllocateSlots(int64_t{1} << 32, int64_t{1} << 16);
  EXPECT_EQ(slots.status().code(), absl::StatusCode::kResourceExhausted) << slots.status();
  const std::string message(slots.status().message());
  EXPECT_NE(message.find("GPU memory: 281474976710656 bytes needed, "), std::string::npos) << message;
  EXPECT_NE(message.find("lower --max-num-seqs or --state-memory"), std::string::npos) << message;
}

}  // namespace
}  // namespace statehouse::testing
