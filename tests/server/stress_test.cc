// 64 clients at once, for a while, over a real connection: some read to the end, some cancel, some run into deadlines,
// some read slowly or not at all. Afterwards nothing may be left: no call, no slot, no queued request; and every answer
// that came through must be the one that its seed gives when it runs alone. STATEHOUSE_SOAK_SECONDS sets how long (30).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "engine/state/host_memory.h"
#include "engine/state/prefix_cache.h"
#include "server/convert_event.h"
#include "tests/support/fake_model.h"
#include "tests/support/server_fixture.h"

namespace statehouse {
namespace {

using testing::Eventually;
using testing::FakeTokenizer;

constexpr int kClients = 64;
constexpr int kPrompts = 8;
constexpr auto kSlowReaderTimeout = absl::Milliseconds(300);

double SoakSeconds() {
  const char* text = std::getenv("STATEHOUSE_SOAK_SECONDS");
  const double seconds = text == nullptr ? 0 : std::atof(text);
  return seconds > 0 ? seconds : 30;
}

testing::FakeModelOptions ModelOptions() {
  testing::FakeModelOptions options;
  options.vocab_size = FakeTokenizer::kSize;
  options.may_be_taken_back = true;
  options.eos_ids = {FakeTokenizer::kEos};
  return options;
}

EngineOptions EngineSettings() {
  EngineOptions options;
  options.max_num_seqs = 12;  // fewer than clients: some always wait
  options.max_num_batched_tokens = 64;
  options.max_num_queued_reqs = 48;  // and some are refused
  options.slow_reader_timeout = kSlowReaderTimeout;
  return options;
}

class Stress : public ::testing::Test {
 protected:
  Stress() : model_(ModelOptions()) {
    auto engine = Engine::Create(&model_, &tokenizer_, EngineSettings());
    EXPECT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    engine_->Start();
    served_ = testing::FakeServedModel(engine_.get(), &tokenizer_);
    // Room for fewer prompts than there are: they are restored, evicted and taken again all the time.
    cache_ =
        std::make_unique<PrefixCache>(PrefixCacheOptions{.memory_bytes = 4 * engine_->GetStatus().slot_bytes}, model_);
    served_.prefix_cache = cache_.get();
    ServerOptions options;
    options.slow_reader_timeout = kSlowReaderTimeout;
    server_ = std::make_unique<testing::TestServer>(options);
    EXPECT_TRUE(server_->status().ok()) << server_->status();
    server_->server().Serve(&served_);
  }
  ~Stress() override { server_->Stop(); }

  static v1::GenerateRequest Request(int prompt) {
    v1::GenerateRequest request;
    request.set_text("prompt number " + std::to_string(prompt) + std::string(prompt * 11, 'x'));
    request.mutable_sampling()->set_seed(1000 + prompt);
    request.mutable_stop()->set_max_tokens(20 + 10 * prompt);
    if (prompt % 2 == 1) request.set_logprobs(5);
    if (prompt % 4 == 3) request.set_n(3);
    return request;
  }
  // More than a connection takes in while nobody reads.
  static void MakeLong(v1::GenerateRequest* request) {
    request->mutable_stop()->set_max_tokens(100000);
    request->mutable_stop()->set_ignore_eos(true);
    request->set_logprobs(20);
  }
  // The ids of all outputs, in order.
  static std::vector<int32_t> Ids(const v1::GenerateResponse& response) {
    std::vector<int32_t> ids;
    for (const auto& output : response.outputs()) {
      ids.insert(ids.end(), output.token_ids().begin(), output.token_ids().end());
      ids.push_back(-1);
    }
    return ids;
  }

  // A reader that is slow for certain: its sequence must pause, and must not keep its slot for ever.
  void NeverRead() {
    v1::GenerateRequest request = Request(0);
    MakeLong(&request);
    grpc::ClientContext context;
    const auto stub = server_->Generation();
    const auto reader = stub->Generate(&context, request);
    EXPECT_TRUE(Eventually([&] { return engine_->stats().slow_reader_pauses > 0; }, 60));
    EXPECT_TRUE(Eventually([&] { return engine_->GetStatus().slots_used == 0; }, 60)) << "it keeps its slot";
    v1::GenerateEvent event;
    while (reader->Read(&event)) {
    }
    EXPECT_FALSE(reader->Finish().ok());
  }

  // What one client does until `end`.
  class Client;

  testing::FakeModel model_;
  FakeTokenizer tokenizer_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<PrefixCache> cache_;
  ServedModel served_;
  std::unique_ptr<testing::TestServer> server_;
  std::array<std::vector<int32_t>, kPrompts> alone_;
};

struct Tally {
  std::atomic<int64_t> complete{0}, cancelled{0}, deadline{0}, not_read{0}, overloaded{0}, wrong{0}, unexpected{0};
};

class Stress::Client {
 public:
  Client(const Stress* test, Tally* tally, int seed)
      : test_(test), tally_(tally), seed_(seed), random_(seed), stub_(test->server_->Generation()) {}

  void Run(std::chrono::steady_clock::time_point end) {
    while (std::chrono::steady_clock::now() < end) {
      const int prompt = Pick(kPrompts);
      switch (Pick(8)) {
        case 0:
          Once(prompt);
          break;
        case 1:
          Stream(prompt, {.cancel_after = Pick(6)});
          break;
        case 2:
          Stream(prompt, {.deadline_ms = 1 + Pick(40)});
          break;
        case 3:
          Stream(prompt, {.pause_ms = Pick(200)});
          break;
        case 4:
          Stream(prompt, {.cancel_by_id = true});
          break;
        case 5:
          Stream(prompt, {.long_output = true, .cancel_after = 1 + Pick(3), .pause_ms = Pick(500)});
          break;
        default:
          Stream(prompt, {});
      }
    }
  }

 private:
  struct How {
    bool long_output = false;
    int cancel_after = -1;  // reads
    int deadline_ms = 0;
    int pause_ms = 0;  // before the first read
    bool cancel_by_id = false;
  };

  int Pick(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }

  void Once(int prompt) {
    started_ = std::chrono::steady_clock::now();
    grpc::ClientContext context;
    v1::GenerateResponse response;
    Judge(stub_->GenerateOnce(&context, Request(prompt), &response), prompt, response, {});
  }

  void Stream(int prompt, const How& how) {
    grpc::ClientContext context;
    const std::string id = absl::StrCat("client-", seed_, "-", ++count_);
    context.AddMetadata("x-request-id", id);
    if (how.deadline_ms > 0) {
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(how.deadline_ms));
    }
    v1::GenerateRequest request = Request(prompt);
    if (how.long_output) MakeLong(&request);
    started_ = std::chrono::steady_clock::now();
    auto reader = stub_->Generate(&context, request);
    if (how.pause_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(how.pause_ms));
    if (how.cancel_by_id) {
      grpc::ClientContext cancel_context;
      v1::CancelRequest cancel;
      v1::CancelResponse answer;
      cancel.set_request_id(id);
      const grpc::Status cancelled = stub_->Cancel(&cancel_context, cancel, &answer);
      if (!cancelled.ok()) Unexpected("Cancel", cancelled);
    }
    v1::GenerateResponse response;
    v1::GenerateEvent event;
    int reads = 0;
    while (reader->Read(&event)) {
      Fold(event, &response);
      if (++reads == how.cancel_after) context.TryCancel();
    }
    Judge(reader->Finish(), prompt, response, how);
  }

  void Judge(const grpc::Status& status, int prompt, const v1::GenerateResponse& response, const How& how) {
    switch (status.error_code()) {
      case grpc::StatusCode::OK:
        ++tally_->complete;
        if (!how.long_output && Ids(response) != test_->alone_[prompt]) ++tally_->wrong;
        return;
      case grpc::StatusCode::CANCELLED:
        ++tally_->cancelled;
        // A deadline too: where gRPC's server sees it first, it resets the stream, and the client reads that as
        // CANCELLED.
        if (how.cancel_after >= 0 || how.cancel_by_id || how.pause_ms > 0 || how.deadline_ms > 0) return;
        // On a crowded machine a client can be kept from reading for longer than the server waits for a stuck write.
        if (std::chrono::steady_clock::now() - started_ > 2 * absl::ToChronoMilliseconds(kSlowReaderTimeout)) {
          ++tally_->not_read;
        } else {
          Unexpected("call", status);
        }
        return;
      case grpc::StatusCode::DEADLINE_EXCEEDED:
        ++(status.error_message().find("were not read") != std::string::npos ? tally_->not_read : tally_->deadline);
        return;
      case grpc::StatusCode::RESOURCE_EXHAUSTED:
        ++tally_->overloaded;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        return;
      default:
        Unexpected("call", status);
    }
  }

  void Unexpected(const char* what, const grpc::Status& status) {
    ++tally_->unexpected;
    std::fprintf(stderr, "%s: unexpected status %d: %s\n", what, status.error_code(), status.error_message().c_str());
  }

  const Stress* const test_;
  Tally* const tally_;
  const int seed_;
  std::mt19937 random_;
  std::unique_ptr<v1::Generation::Stub> stub_;
  int count_ = 0;
  std::chrono::steady_clock::time_point started_;  // of the call under way
};

TEST_F(Stress, SixtyFourClients_LeaveNothingBehind) {
  for (int prompt = 0; prompt < kPrompts; ++prompt) {
    grpc::ClientContext context;
    v1::GenerateResponse response;
    const grpc::Status status = server_->Generation()->GenerateOnce(&context, Request(prompt), &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    alone_[prompt] = Ids(response);
  }
  NeverRead();
  Tally tally;
  const double seconds = SoakSeconds();
  const auto start = std::chrono::steady_clock::now();
  const auto end = start + std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(seconds));
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&, i] { Client(this, &tally, i + 1).Run(end); });
  }
  std::this_thread::sleep_until(start + (end - start) / 2);
  const int64_t resident_half_way = ResidentBytes();
  for (auto& client : clients) client.join();
  const int64_t resident_end = ResidentBytes();
  std::printf(
      "%.0f s: %ld complete, %ld cancelled, %ld deadlines, %ld not read, %ld refused; %ld pauses for slow readers; "
      "resident %ld MB half way, %ld MB at the end\n",
      seconds, tally.complete.load(), tally.cancelled.load(), tally.deadline.load(), tally.not_read.load(),
      tally.overloaded.load(), static_cast<long>(engine_->stats().slow_reader_pauses.load()),
      static_cast<long>(resident_half_way >> 20), static_cast<long>(resident_end >> 20));

  EXPECT_EQ(tally.wrong, 0) << "a seeded answer depends on what else runs";
  EXPECT_EQ(tally.unexpected, 0);
  EXPECT_GT(tally.complete, kClients) << "too little happened to mean anything";
  EXPECT_GT(tally.cancelled, 0);
  EXPECT_GT(tally.deadline, 0);
  EXPECT_EQ(model_.violation(), "");
  EXPECT_TRUE(Eventually([&] { return server_->server().metrics().live_calls == 0; }, 20))
      << server_->server().metrics().live_calls << " calls are left";
  EXPECT_TRUE(Eventually([&] {
    const EngineStatus status = engine_->GetStatus();
    return status.slots_used == 0 && status.slots_zeroing == 0 && status.requests_queued == 0 &&
           status.tokens_queued == 0;
  })) << engine_->GetStatus().slots_used
      << " slots are left";
#if !defined(__SANITIZE_ADDRESS__) && !defined(STATEHOUSE_SANITIZED)
  EXPECT_LT(resident_end - resident_half_way, 64 << 20) << "memory grows with the number of calls";
#endif
}

}  // namespace
}  // namespace statehouse
