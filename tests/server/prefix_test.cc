// Shared prefixes over a real connection, on the real engine with a fake model: what the wire, the log and the metrics
// say, and that two callers share nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <future>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "engine/state/prefix_cache.h"
#include "server/metrics_text.h"
#include "tests/support/fake_model.h"
#include "tests/support/fake_vault.h"
#include "tests/support/server_fixture.h"

namespace statehouse {
namespace {

using testing::FakeTokenizer;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kAnn[] = "token-of-ann-0123456789";
constexpr char kBob[] = "token-of-bob-0123456789";

testing::FakeModelOptions ModelOptions() {
  testing::FakeModelOptions options;
  options.vocab_size = FakeTokenizer::kSize;
  options.may_be_taken_back = true;
  return options;
}

class Prefix : public ::testing::Test {
 protected:
  Prefix() : model_(ModelOptions()) {}
  ~Prefix() override {
    if (server_ != nullptr) server_->Stop();
  }
  void Serve(int64_t memory_bytes = 64 << 20, double efficiency_weight = 1, SnapshotVault* vault = nullptr) {
    if (server_ != nullptr) server_->Stop();  // which drains its engine
    auto engine = Engine::Create(&model_, &tokenizer_, {.max_num_seqs = 3, .max_num_batched_tokens = 64});
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    engine_->Start();
    served_ = testing::FakeServedModel(engine_.get(), &tokenizer_);
    cache_ = nullptr;
    if (memory_bytes > 0) {
      cache_ = std::make_unique<PrefixCache>(
          PrefixCacheOptions{.memory_bytes = memory_bytes, .efficiency_weight = efficiency_weight, .vault = vault},
          model_);
      served_.prefix_cache = cache_.get();
    }
    ServerOptions options;
    options.auth_tokens_file = dir_.File("tokens");
    std::ofstream(options.auth_tokens_file) << "ann " << kAnn << "\nbob " << kBob << "\n";
    std::filesystem::permissions(options.auth_tokens_file, std::filesystem::perms::owner_read);
    server_ = std::make_unique<testing::TestServer>(options);
    ASSERT_TRUE(server_->status().ok()) << server_->status();
    server_->server().Serve(&served_);
    stub_ = server_->Generation();
  }

  static v1::GenerateRequest Text(const std::string& text, int64_t max_tokens = 4) {
    v1::GenerateRequest request;
    request.set_text(text);
    request.mutable_sampling()->set_seed(5);
    request.mutable_stop()->set_max_tokens(max_tokens);
    request.set_logprobs(1);
    return request;
  }
  v1::GenerateResponse Answer(const v1::GenerateRequest& request, const char* token = kAnn) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", std::string("Bearer ") + token);
    v1::GenerateResponse response;
    const grpc::Status status = stub_->GenerateOnce(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  std::string Refusal(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", std::string("Bearer ") + kAnn);
    v1::GenerateResponse response;
    const grpc::Status status = stub_->GenerateOnce(&context, request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return status.error_message();
  }
  static std::string OutputsOf(const v1::GenerateResponse& response) {
    std::string all;
    for (const auto& output : response.outputs()) all += output.SerializeAsString();
    return all;
  }

  testing::TempDir dir_;
  testing::FakeModel model_;
  FakeTokenizer tokenizer_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<PrefixCache> cache_;
  ServedModel served_;
  std::unique_ptr<testing::TestServer> server_;
  std::unique_ptr<v1::Generation::Stub> stub_;
};

TEST_F(Prefix, DiskThatHangs_HoldsUpOnlyPromptsThatLieThere) {
  testing::FakeVault vault;
  std::promise<void> gate;
  vault.on_fetch = [answers = gate.get_future().share()] { answers.wait(); };
  Serve(3 * 40'000, 0, &vault);
  const auto prompt = [](int idx) { return std::string(150, static_cast<char>('a' + idx)); };
  for (int idx = 0; idx < 12; ++idx) Answer(Text(prompt(idx)));
  ASSERT_GT(vault.kept.size(), 3u) << "prompts had to leave memory";
  // The oldest are asked for by more calls than there are threads that tokenise.
  std::vector<std::thread> waiting;
  for (int idx = 0; idx < 3; ++idx) {
    waiting.emplace_back([&, idx] { EXPECT_GT(Answer(Text(prompt(idx))).usage().cached_tokens(), 0); });
  }
  const bool all_wait = testing::Eventually([&] { return vault.fetches >= 3; });
  EXPECT_TRUE(all_wait) << "they wait on the threads that tokenise";
  if (all_wait) {
    EXPECT_EQ(Answer(Text(std::string(150, 'z'))).usage().cached_tokens(), 0);
  }
  gate.set_value();
  for (std::thread& thread : waiting) thread.join();
  server_->Stop();
  cache_.reset();  // before the vault
}

TEST_F(Prefix, RepeatedPrompt_IsRestored_AndEveryPlaceSaysSo) {
  Serve();
  const std::string text(200, 'a');
  const auto first = Answer(Text(text));
  EXPECT_EQ(first.usage().cached_tokens(), 0);
  EXPECT_EQ(first.cache().miss(), v1::CACHE_MISS_NOTHING);
  EXPECT_EQ(first.cache().tier(), v1::CACHE_TIER_UNSPECIFIED);
  EXPECT_EQ(first.cache().explanation(), "restored none of 201 tokens; no earlier prompt begins like this one");
  const auto second = Answer(Text(text));
  EXPECT_EQ(second.usage().cached_tokens(), 201);
  EXPECT_EQ(second.cache().cached_tokens(), 201);
  EXPECT_EQ(second.cache().matched_tokens(), 201);
  EXPECT_EQ(second.cache().miss(), v1::CACHE_MISS_NONE);
  EXPECT_EQ(second.cache().tier(), v1::CACHE_TIER_HOST);
  EXPECT_EQ(second.cache().explanation(), "restored 201 of 201 tokens from host memory");
  EXPECT_EQ(OutputsOf(second), OutputsOf(first));

  const std::string metrics = MetricsText(ServerMetrics(), &served_);
  EXPECT_THAT(metrics, HasSubstr("vllm:prefix_cache_queries_total{model_name=\"fake\",engine=\"0\"} 402\n"));
  EXPECT_THAT(metrics, HasSubstr("vllm:prefix_cache_hits_total{model_name=\"fake\",engine=\"0\"} 201\n"));
  EXPECT_THAT(metrics, HasSubstr("hits_total{model_name=\"fake\",engine=\"0\",tier=\"host\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("misses_total{model_name=\"fake\",engine=\"0\",reason=\"nothing\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("misses_total{model_name=\"fake\",engine=\"0\",reason=\"none\"} 1\n"));
  EXPECT_THAT(server_->Logged(), HasSubstr("\"cached_tokens\":201,\"cache_miss\":\"none\",\"cache_tier\":\"host\""));
}

TEST_F(Prefix, Stream_SaysItInItsFirstAndLastEvent) {
  Serve();
  Answer(Text("hello"));
  grpc::ClientContext context;
  context.AddMetadata("authorization", std::string("Bearer ") + kAnn);
  const auto reader = stub_->Generate(&context, Text("hello there"));
  v1::GenerateEvent event;
  int reports = 0;
  while (reader->Read(&event)) {
    if (!event.has_started() && !event.has_done()) continue;
    const v1::CacheReport& cache = event.has_started() ? event.started().cache() : event.done().cache();
    EXPECT_EQ(cache.cached_tokens(), 6);
    EXPECT_EQ(cache.miss(), v1::CACHE_MISS_DIVERGED);
    ++reports;
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(reports, 2);
}

TEST_F(Prefix, SecondCaller_LearnsNothingOfTheFirst) {
  Serve();
  const std::string secret = "the password is hunter2, and the rest is long enough to be worth a snapshot";
  const auto of_ann = Answer(Text(secret), kAnn);
  const auto count_rows = [&](const v1::GenerateRequest& request, const char* token, v1::GenerateResponse* response) {
    const int64_t before = model_.num_rows();
    *response = Answer(request, token);
    return model_.num_rows() - before;
  };
  v1::GenerateResponse same, unknown, ann_again;
  const std::string other(secret.size(), 'z');
  const int64_t rows_same = count_rows(Text(secret), kBob, &same);
  const int64_t rows_unknown = count_rows(Text(other), kBob, &unknown);
  EXPECT_LT(count_rows(Text(secret), kAnn, &ann_again), rows_same) << "the first caller does share with herself";
  // Not in work, which is time, nor in words. (They share the start token by now.)
  EXPECT_EQ(same.usage().cached_tokens(), 0);
  EXPECT_EQ(same.cache().miss(), v1::CACHE_MISS_NOTHING);
  EXPECT_EQ(same.cache().matched_tokens(), 0);
  EXPECT_EQ(same.cache().explanation(),
            absl::StrCat("restored none of ", secret.size() + 1, " tokens; no earlier prompt begins like this one"));
  EXPECT_EQ(rows_same, static_cast<int64_t>(secret.size()) + 1 + 3);
  EXPECT_LE(rows_same - rows_unknown, 1);
  EXPECT_EQ(OutputsOf(same), OutputsOf(of_ann)) << "the answer is the same, computed anew";
}

TEST_F(Prefix, SaltOfTheRequest_KeepsApart) {
  Serve();
  auto salted = Text("some words that are said");
  salted.mutable_cache()->set_salt("tenant 1");
  Answer(salted);
  EXPECT_EQ(Answer(Text("some words that are said")).usage().cached_tokens(), 0);
  EXPECT_GT(Answer(salted).usage().cached_tokens(), 0);
  salted.mutable_cache()->set_salt("tenant 2");
  EXPECT_EQ(Answer(salted).usage().cached_tokens(), 0);
}

TEST_F(Prefix, Bypassed_SaysWhy) {
  Serve();
  const std::string text = "some words that are said";
  auto bypass = Text(text);
  bypass.mutable_cache()->set_bypass(true);
  EXPECT_EQ(Answer(bypass).cache().explanation(), "not looked up: the request says so (cache.bypass)");
  EXPECT_EQ(Answer(Text(text)).usage().cached_tokens(), 0) << "a bypassed request left something";
  auto logprobs = Text(text);
  logprobs.set_prompt_logprobs(1);
  const auto response = Answer(logprobs);
  EXPECT_EQ(response.cache().miss(), v1::CACHE_MISS_BYPASSED);
  EXPECT_EQ(response.cache().explanation(), "not looked up: prompt_logprobs need every token of the prompt computed");
  EXPECT_EQ(response.prompt_logprobs_size(), 24);
  Serve(0);
  EXPECT_EQ(Answer(Text(text)).cache().explanation(),
            "not looked up: this server keeps no prefixes (--no-enable-prefix-caching)");
  EXPECT_THAT(MetricsText(ServerMetrics(), &served_), Not(HasSubstr("prefix_cache")));
}

TEST_F(Prefix, PointsOfTheRequest_AreKeptAndChecked) {
  Serve();
  auto request = Text(std::string(100, 'a') + std::string(100, 'b'));
  request.mutable_cache()->add_points(51);
  request.mutable_cache()->add_points(101);
  Answer(request);
  EXPECT_EQ(Answer(Text(std::string(100, 'a') + "cc")).usage().cached_tokens(), 101);
  request.mutable_cache()->add_points(101);
  EXPECT_THAT(Refusal(request), HasSubstr("cache.points[2]"));
  request.mutable_cache()->set_points(2, 202);
  EXPECT_THAT(Refusal(request), HasSubstr("ascending numbers in [1, 201], the tokens of the prompt"));
  request.mutable_cache()->set_points(0, 0);
  EXPECT_THAT(Refusal(request), HasSubstr("cache.points[0]"));
  auto messages = Text("x");
  messages.mutable_cache()->add_after_messages(1);
  EXPECT_THAT(Refusal(messages), HasSubstr("cache.after_messages"));
  auto salt = Text("x");
  salt.mutable_cache()->set_salt(std::string(129, 's'));
  EXPECT_THAT(Refusal(salt), HasSubstr("cache.salt"));
}

v1::GenerateRequest Talk(const std::vector<std::string>& texts) {
  v1::GenerateRequest request;
  for (size_t idx = 0; idx < texts.size(); ++idx) {
    auto* message = request.mutable_chat()->add_messages();
    message->set_role(idx == 0 ? "system" : idx % 2 == 1 ? "user" : "assistant");
    message->set_content(texts[idx]);
  }
  request.mutable_stop()->set_max_tokens(12);
  request.mutable_sampling()->set_seed(3);
  // Words that are tokenised as they were said.
  for (int32_t letter = 'a'; letter <= 'z'; ++letter) request.mutable_sampling()->add_allowed_token_ids(letter);
  return request;
}

TEST_F(Prefix, Chat_KeepsWhatEndsAfterTheMessagesThatItNames) {
  Serve();
  const std::string system(300, 's');
  auto request = Talk({system, "first question"});
  request.mutable_cache()->add_after_messages(1);
  Answer(request);
  const auto other = Answer(Talk({system, "another one"}));
  // <|im_start|>, "system\n", the text, <|im_end|> and the line's end, at least.
  EXPECT_GE(other.usage().cached_tokens(), 309);
  request.mutable_cache()->add_after_messages(3);
  EXPECT_THAT(Refusal(request), HasSubstr("ascending numbers in [1, 2], the messages of the chat"));
}

TEST_F(Prefix, Conversation_GoesOnFromItsLastAnswer) {
  Serve();
  std::vector<std::string> texts = {"be short", "first question"};
  int64_t computed = 0, prompts = 0;
  for (int turn = 0; turn < 5; ++turn) {
    const auto response = Answer(Talk(texts));
    if (turn > 0) {
      EXPECT_GT(response.usage().cached_tokens(), prompts) << "the answer was computed again";
    }
    prompts = response.usage().prompt_tokens();
    computed += prompts - response.usage().cached_tokens();
    texts.push_back(response.outputs(0).text());
    texts.push_back("and then?");
  }
  EXPECT_LT(computed, 2 * prompts);
}

// Workloads through the whole server: tokens that need not be computed, against keeping the newest at equal bytes.
TEST_F(Prefix, Workloads_SaveMoreTokensThanLeastRecentlyUsed) {
  const auto draw_text = [](std::mt19937* random, int64_t size) {
    std::string text(static_cast<size_t>(size), ' ');
    for (char& c : text) c = static_cast<char>('a' + (*random)() % 26);
    return text;
  };
  struct Saved {
    int64_t prompt = 0, cached = 0;
    double share() const { return 100.0 * static_cast<double>(cached) / static_cast<double>(prompt); }
  };
  const auto shared_prefixes = [&](Saved* saved) {
    std::mt19937 random(1);
    std::vector<std::string> systems;
    std::vector<double> popularity;
    for (int rank = 1; rank <= 12; ++rank) {
      systems.push_back(draw_text(&random, 100 + static_cast<int64_t>(random() % 900)));
      popularity.push_back(1.0 / rank);
    }
    std::discrete_distribution<size_t> pick(popularity.begin(), popularity.end());
    for (int round = 0; round < 250; ++round) {
      const auto response =
          Answer(Text(systems[pick(random)] + draw_text(&random, 10 + static_cast<int64_t>(random() % 60)), 2));
      saved->prompt += response.usage().prompt_tokens();
      saved->cached += response.usage().cached_tokens();
    }
  };
  const auto conversations = [&](Saved* saved) {
    std::mt19937 random(2);
    std::vector<std::vector<std::string>> talks(20);
    const std::string system = draw_text(&random, 300);
    for (int round = 0; round < 250; ++round) {
      auto& texts = talks[std::min(random() % talks.size(), random() % talks.size())];
      if (texts.empty() || texts.size() > 16) texts = {system};
      texts.push_back(draw_text(&random, 10 + static_cast<int64_t>(random() % 80)));
      auto request = Talk(texts);
      request.mutable_stop()->set_max_tokens(30);
      const auto response = Answer(request);
      saved->prompt += response.usage().prompt_tokens();
      saved->cached += response.usage().cached_tokens();
      texts.push_back(response.outputs(0).text());
    }
  };
  const int64_t one = SlotShape{model_.retention(), model_.config().num_layers}.bytes();
  for (const int64_t states : {16, 32}) {
    for (const bool is_shared : {true, false}) {
      Saved ours, newest;
      for (const double weight : {1.0, 0.0}) {
        Serve(states * one, weight);
        Saved* const saved = weight > 0 ? &ours : &newest;
        is_shared ? shared_prefixes(saved) : conversations(saved);
      }
      std::printf("%-15s memory of %2lld slots: %5.1f %% of %lld prompt tokens restored, LRU %5.1f %%\n",
                  is_shared ? "shared prefixes" : "conversations", static_cast<long long>(states), ours.share(),
                  static_cast<long long>(ours.prompt), newest.share());
      EXPECT_GT(ours.cached, newest.cached) << (is_shared ? "shared prefixes" : "conversations");
    }
  }
}

}  // namespace
}  // namespace statehouse
