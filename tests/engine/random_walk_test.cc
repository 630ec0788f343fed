// A random walk of submitting, cancelling, reading, waiting and failing, compared at every step with a plain model of
// what the engine promises. STATEHOUSE_SOAK_SECONDS makes it longer.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <random>

#include "engine/errors.h"
#include "tests/engine/ahead_model.h"
#include "tests/engine/engine_fixture.h"
#include "tests/engine/reference_output.h"

namespace statehouse::testing {
namespace {

// One request as the plain model sees it.
struct Client {
  Request request;
  std::shared_ptr<EventStream> stream;
  ReadStream read;
  int64_t arrival = 0;
  bool was_cancelled = false;
  bool reads = true;        // a slow reader does not
  bool up_to_date = false;  // had read everything when this step began
  size_t tokens_before = 0;
};

// Known also where the reader has not come so far: usage is set with the last event.
bool HasEnded(const Client& client) { return client.stream->usage().prompt_tokens > 0; }

class RandomWalk : public EngineTest {
 protected:
  void Walk(uint32_t seed, int64_t num_steps);

  int64_t ended_ = 0;
  int64_t num_ahead_ = 0;
  std::map<FinishReason, int64_t> reasons_;

 private:
  void Submit();
  void Disturb();
  void CheckStep(absl::Time now);
  void CheckOrder();
  void CheckEnd(const Client& client);
  int64_t PickSize() { return std::vector<int64_t>{1, 5, 31, 32, 33, 64, 150}[random_() % 7]; }

  std::mt19937 random_;
  std::vector<std::unique_ptr<Client>> clients_;
  int64_t arrivals_ = 0;
  int64_t slots_ = 0;
};

void RandomWalk::Submit() {
  std::unique_ptr<Request> request = MakeRequest(MakePrompt(PickSize(), random_(), 64), 1 + random_() % 30);
  request->sampling.seed = random_();
  request->principal = random_() % 2 == 0 ? "ann" : "bob";
  request->priority = static_cast<int32_t>(random_() % 3) - 1;
  request->n = random_() % 3 == 0 ? 1 + random_() % 6 : 1;
  if (random_() % 4 == 0) request->stop.stop = {"ab", "zz", "c"};
  if (random_() % 5 == 0) request->num_prompt_logprobs = 2;
  if (random_() % 4 == 0) request->deadline = clock_.Now() + absl::Milliseconds(random_() % 3000);
  auto client = std::make_unique<Client>();
  client->request = *request;
  client->reads = random_() % 6 != 0;
  // The plain model of admission.
  int64_t queued = 0;
  int64_t queued_tokens = 0;
  int64_t of_principal = 0;
  for (const auto& other : clients_) {
    if (HasEnded(*other)) continue;
    if (other->request.principal == request->principal) of_principal += std::min<int64_t>(other->request.n, slots_);
    if (other->read.started) continue;
    ++queued;
    queued_tokens += static_cast<int64_t>(other->request.prompt.size());
  }
  const bool fits =
      queued < engine_->options().max_num_queued_reqs &&
      queued_tokens + static_cast<int64_t>(request->prompt.size()) <= engine_->options().max_num_queued_tokens &&
      of_principal + std::min<int64_t>(request->n, slots_) <= engine_->options().max_requests_per_principal;
  absl::StatusOr<std::shared_ptr<EventStream>> stream = engine_->Submit(std::move(request));
  ASSERT_EQ(stream.ok(), fits) << stream.status();
  if (!stream.ok()) {
    EXPECT_EQ(stream.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_TRUE(RetryAfterOf(stream.status()).has_value());
    return;
  }
  client->stream = *stream;
  client->arrival = ++arrivals_;
  client->read.outputs.resize(client->request.n);
  clients_.push_back(std::move(client));
}

void RandomWalk::Disturb() {
  if (!clients_.empty() && random_() % 12 == 0) {
    Client& client = *clients_[random_() % clients_.size()];
    if (!HasEnded(client)) {
      client.was_cancelled = true;
      if (random_() % 2 == 0) {
        client.stream->Cancel();
      } else {
        EXPECT_TRUE(engine_->Cancel(client.stream->request_id(), client.request.principal));
      }
    }
  }
  if (random_() % 10 == 0) clock_.Advance(absl::Milliseconds(random_() % 500));
  for (const auto& client : clients_) {
    if (random_() % 50 == 0) client->reads = !client->reads;
  }
}

// Nobody starts while somebody with a better place waits.
void RandomWalk::CheckOrder() {
  const auto place = [](const Client& client) { return std::pair(client.request.priority, client.arrival); };
  for (const auto& waiting : clients_) {
    if (waiting->read.started || waiting->read.done || waiting->was_cancelled) continue;
    for (const auto& started : clients_) {
      // Those that started in this step hold no token yet.
      if (!started->read.started || started->tokens_before > 0 || started->read.done) continue;
      if (started->read.prompt_logprobs.empty() && place(*started) > place(*waiting)) {
        EXPECT_LT(started->arrival, waiting->arrival) << "a request overtook one of better priority";
      }
    }
  }
}

void RandomWalk::CheckStep(absl::Time now) {
  int64_t live = 0;
  for (const auto& client : clients_) {
    size_t tokens = 0;
    if (client->reads || client->was_cancelled || client->request.deadline <= now) {
      Drain(client->stream.get(), &client->read);
    }
    // A slow reader still sees that it was started.
    Event first;
    if (!client->read.started && !client->read.done && client->stream->TryNext(&first)) Take(first, &client->read);
    for (const ReadOutput& output : client->read.outputs) tokens += output.tokens.size();
    if (client->was_cancelled || client->request.deadline <= now) {
      EXPECT_TRUE(client->read.done) << "a cancelled or late request outlived a step";
    }
    // A single output that has its first token goes on by one token per step (the step of its switch-over excepted).
    const bool decoding = client->request.n == 1 && client->tokens_before > 0 && client->up_to_date && client->reads &&
                          !client->read.done;
    const int64_t position = static_cast<int64_t>(client->request.prompt.size() + client->tokens_before);
    if (decoding && position != 33) {
      EXPECT_EQ(tokens, client->tokens_before + 1) << "a decoding sequence was passed over";
    }
    client->tokens_before = tokens;
    client->up_to_date = client->reads;
    live += !HasEnded(*client);
  }
  const EngineStatus status = engine_->GetStatus();
  EXPECT_LE(status.slots_used + status.slots_zeroing, slots_);
  EXPECT_LE(status.requests_running, slots_);
  EXPECT_EQ(status.requests_running + status.requests_queued, live);
}

void RandomWalk::CheckEnd(const Client& client) {
  ++ended_;
  const absl::StatusCode code = client.stream->status().code();
  for (int32_t output = 0; output < client.request.n; ++output) {
    const ReadOutput& actual = client.read.outputs[output];
    const ReferenceOutput expected = Reference(*model_, *vocabulary_, client.request, output);
    ++reasons_[actual.end.reason];
    if (actual.end.reason == FinishReason::kStop || actual.end.reason == FinishReason::kLength) {
      EXPECT_EQ(actual.tokens, expected.tokens);
      EXPECT_EQ(actual.end.reason, expected.reason);
      EXPECT_EQ(actual.end.stop_index, expected.stop_index);
      EXPECT_EQ(actual.end.text_bytes, static_cast<int64_t>(expected.text.size()));
      continue;
    }
    // Cut short: a beginning of what it would have been.
    ASSERT_LE(actual.tokens.size(), expected.tokens.size());
    EXPECT_TRUE(std::equal(actual.tokens.begin(), actual.tokens.end(), expected.tokens.begin()));
    EXPECT_EQ(code, actual.end.reason == FinishReason::kCancelled ? absl::StatusCode::kCancelled
                                                                  : absl::StatusCode::kDeadlineExceeded);
  }
  if (code == absl::StatusCode::kCancelled) {
    EXPECT_TRUE(client.was_cancelled);
  }
}

void RandomWalk::Walk(uint32_t seed, int64_t num_steps) {
  random_.seed(seed);
  slots_ = 1 + random_() % 6;
  EngineOptions options{.max_num_seqs = slots_, .max_num_batched_tokens = static_cast<int64_t>(6 + random_() % 60)};
  options.max_num_queued_reqs = 12;
  options.max_num_queued_tokens = 700;
  options.max_requests_per_principal = 10;
  options.event_capacity = 1 + random_() % 30;
  options.slow_reader_timeout = absl::Seconds(2);
  // Half of the walks on a model that takes steps ahead.
  auto ahead = seed % 2 == 0 ? std::make_unique<AheadModel>() : nullptr;
  const AheadModel* const counts = ahead.get();
  MakeEngineOn(ahead != nullptr ? std::move(ahead) : std::make_unique<FakeModel>(), options);
  for (int64_t step = 0; step < num_steps && !HasFailure(); ++step) {
    while (random_() % 3 == 0) Submit();
    Disturb();
    const absl::Time now = clock_.Now();
    engine_->RunStep();
    CheckStep(now);
    CheckOrder();
    std::erase_if(clients_, [this](const std::unique_ptr<Client>& client) {
      if (client->read.done) CheckEnd(*client);
      return client->read.done;
    });
    ASSERT_EQ(model_->violation(), "") << "seed " << seed << ", step " << step;
  }
  // Let everything end: slow readers by their timeout.
  for (int64_t round = 0; round < 100000 && !clients_.empty(); ++round) {
    engine_->RunStep();
    clock_.Advance(absl::Milliseconds(20));
    for (const auto& client : clients_) Drain(client->stream.get(), &client->read);
    std::erase_if(clients_, [this](const std::unique_ptr<Client>& client) {
      if (client->read.done) CheckEnd(*client);
      return client->read.done;
    });
  }
  EXPECT_TRUE(clients_.empty());
  ExpectAllSlotsFree();
  if (counts != nullptr) num_ahead_ += counts->num_ahead();
}

TEST_F(RandomWalk, KeepsEveryPromise) {
  const char* soak = std::getenv("STATEHOUSE_SOAK_SECONDS");
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(soak != nullptr ? std::atoi(soak) : 0);
  for (uint32_t seed = 1; !HasFailure() && (seed <= 40 || std::chrono::steady_clock::now() < until); ++seed) {
    SCOPED_TRACE(seed);
    Walk(seed, 400);
  }
  EXPECT_GT(ended_, 1000);
  EXPECT_GT(num_ahead_, 500);
  for (const FinishReason reason :
       {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled, FinishReason::kDeadline}) {
    EXPECT_GT(reasons_[reason], 20) << FinishReasonName(reason);
  }
}

TEST_F(RandomWalk, DeviceThatFailsAnywhere_LeavesNothingBehind) {
  for (uint32_t seed = 1; seed <= 30; ++seed) {
    std::mt19937 random(seed);
    EngineOptions options{.max_num_seqs = static_cast<int64_t>(1 + random() % 4), .max_num_batched_tokens = 24};
    MakeEngineOn(seed % 2 == 0 ? std::make_unique<AheadModel>() : std::make_unique<FakeModel>(), options);
    std::vector<std::shared_ptr<EventStream>> streams;
    for (int idx = 0; idx < 6; ++idx) {
      auto request = MakeRequest(MakePrompt(1 + random() % 80, idx), 20);
      request->n = 1 + random() % 4;
      streams.push_back(EngineTest::Submit(std::move(request)));
    }
    model_->FailAfter(1 + random() % 40);
    RunAll();
    for (const auto& stream : streams) {
      ReadStream read;
      Drain(stream.get(), &read);
      // Some have ended before; the others know why they did not.
      ASSERT_TRUE(read.done) << seed;
      if (!stream->status().ok()) {
        EXPECT_NE(stream->status().message().find("injected fault"), absl::string_view::npos);
      }
    }
    ExpectAllSlotsFree();
  }
}

}  // namespace
}  // namespace statehouse::testing
