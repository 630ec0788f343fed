// The demo checkpoint behind a real server: what users run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/state/host_memory.h"
#include "server/convert_event.h"
#include "server/hosted_model.h"
#include "tests/support/server_fixture.h"

namespace statehouse {
namespace {

class EndToEnd : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    HostedModelOptions options;
    options.directory = STATEHOUSE_SOURCE_DIR "/models/demo/checkpoint";
    options.served_name = "demo";
    options.engine.max_num_seqs = 8;
    auto model = HostedModel::Load(options);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = model->release();
    server_ = new testing::TestServer;
    ASSERT_TRUE(server_->status().ok()) << server_->status();
    server_->server().Serve(&model_->served());
  }
  static void TearDownTestSuite() {
    delete server_;
    delete model_;
  }
  void SetUp() override { ASSERT_NE(server_, nullptr); }

  static v1::GenerateRequest Chat(const std::string& text, uint64_t seed, int64_t max_tokens) {
    v1::GenerateRequest request;
    auto* message = request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(text);
    request.mutable_sampling()->set_seed(seed);
    request.mutable_sampling()->set_temperature(1);
    request.mutable_stop()->set_max_tokens(max_tokens);
    request.mutable_stop()->set_ignore_eos(true);
    return request;
  }
  static v1::GenerateResponse Read(const v1::GenerateRequest& request, grpc::Status* status) {
    grpc::ClientContext context;
    auto reader = server_->Generation()->Generate(&context, request);
    v1::GenerateResponse response;
    v1::GenerateEvent event;
    while (reader->Read(&event)) Fold(event, &response);
    *status = reader->Finish();
    return response;
  }

  static HostedModel* model_;
  static testing::TestServer* server_;
};

HostedModel* EndToEnd::model_ = nullptr;
testing::TestServer* EndToEnd::server_ = nullptr;

TEST_F(EndToEnd, Status_SaysWhatComputes) {
  grpc::ClientContext context;
  v1::GetStatusResponse status;
  const auto stub = v1::Admin::NewStub(server_->Channel());
  ASSERT_TRUE(stub->GetStatus(&context, {}, &status).ok());
  EXPECT_THAT(status.build().device(), ::testing::HasSubstr("cpu, "));
  EXPECT_FALSE(status.has_machine()) << "nobody asked to measure it";
}

TEST_F(EndToEnd, ASeededRequest_IsTheSameAloneAndAmongThirtyTwoOthers) {
  const auto request = Chat("My name is Ada and I live in Oslo. Where do I live?", 7, 48);
  grpc::Status status;
  const v1::GenerateResponse alone = Read(request, &status);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(alone.outputs(0).token_ids_size(), 48);

  std::atomic<int> failures{0};
  std::vector<std::thread> others;
  for (int i = 0; i < 32; ++i) {
    others.emplace_back([&, i] {
      grpc::Status other_status;
      Read(Chat("Tell me about number " + std::to_string(i) + std::string(i, '.'), 100 + i, 16 + i), &other_status);
      if (!other_status.ok()) ++failures;
    });
  }
  const v1::GenerateResponse among = Read(request, &status);
  for (auto& other : others) other.join();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(among.outputs(0).text(), alone.outputs(0).text());
  EXPECT_TRUE(std::equal(alone.outputs(0).token_ids().begin(), alone.outputs(0).token_ids().end(),
                         among.outputs(0).token_ids().begin(), among.outputs(0).token_ids().end()));
}

TEST_F(EndToEnd, TheStreamedText_IsTheDecodingOfItsIds) {
  auto request = Chat("Count to five.", 3, 40);
  request.set_n(2);
  grpc::Status status;
  const v1::GenerateResponse response = Read(request, &status);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.outputs_size(), 2);
  for (const auto& output : response.outputs()) {
    const std::vector<int32_t> ids(output.token_ids().begin(), output.token_ids().end());
    EXPECT_EQ(output.text(), model_->served().tokenizer->Decode(ids));
  }
  EXPECT_EQ(response.usage().completion_tokens(), 80);
}

TEST_F(EndToEnd, PromptLogprobs_CoverThePromptFromTheSecondTokenOn) {
  auto request = Chat("Hello.", 3, 2);
  request.set_prompt_logprobs(2);
  request.set_logprobs(3);
  grpc::Status status;
  const v1::GenerateResponse response = Read(request, &status);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.prompt_logprobs_size(), response.prompt_token_ids_size() - 1);
  for (int i = 0; i < response.prompt_logprobs_size(); ++i) {
    EXPECT_EQ(response.prompt_logprobs(i).token_id(), response.prompt_token_ids(i + 1));
    EXPECT_EQ(response.prompt_logprobs(i).top_size(), 2);
    EXPECT_LE(response.prompt_logprobs(i).logprob(), 0);
  }
  EXPECT_EQ(response.outputs(0).logprobs_size(), 2);
  EXPECT_EQ(response.outputs(0).logprobs(0).top_size(), 3);
}

TEST_F(EndToEnd, AModelsCard_SaysWhatASequenceCosts) {
  grpc::ClientContext context;
  v1::Model card;
  ASSERT_TRUE(v1::Models::NewStub(server_->Channel())->GetModel(&context, v1::GetModelRequest(), &card).ok());
  EXPECT_EQ(card.name(), "demo");
  EXPECT_EQ(card.family(), "powercoder");
  EXPECT_EQ(card.chat_template(), "demo");
  EXPECT_EQ(card.tokenizer(), "sentencepiece");
  EXPECT_GT(card.state_bytes_per_sequence(), 0);
  EXPECT_EQ(card.fingerprint().size(), 16u);
}

// Of the demo checkpoint, which loads in an instant.
absl::StatusOr<std::unique_ptr<HostedModel>> LoadWith(const std::function<void(HostedModelOptions*)>& change) {
  HostedModelOptions options;
  options.directory = STATEHOUSE_SOURCE_DIR "/models/demo/checkpoint";
  options.engine.max_num_seqs = 2;
  options.sessions.emplace();
  options.enable_prefix_caching = true;
  change(&options);
  return HostedModel::Load(options);
}

TEST(HostedModel, RoomInWhichNothingFits_IsRefusedNamingTheLeast) {
  const struct {
    const char* flag;
    std::function<void(HostedModelOptions*)> change;
  } cases[] = {
      {"--prefix-cache-memory: 1 bytes", [](auto* options) { options->prefix_cache.memory_bytes = 1; }},
      {"--snapshot-host-memory: 1000 bytes", [](auto* options) { options->sessions->host_bytes = 1000; }},
      {"--snapshot-disk-space: 1000 bytes", [](auto* options) { options->sessions->disk_bytes = 1000; }},
      {"--max-session-bytes-per-principal: 20000 bytes",
       [](auto* options) { options->sessions->max_bytes_per_principal = 20000; }},
  };
  for (const auto& refused : cases) {
    const absl::Status status = LoadWith(refused.change).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << refused.flag;
    EXPECT_THAT(std::string(status.message()), ::testing::StartsWith(refused.flag));
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("0 or at least "));
  }
}

TEST(HostedModel, MoreThanIsUsedOrThere_IsSaid) {
  const auto model = LoadWith([](HostedModelOptions* options) {
    options->engine.max_num_seqs = 0;
    options->engine.max_num_batched_tokens = 4;
    options->engine.state_memory_bytes = int64_t{1} << 30;
    options->prefix_cache.memory_bytes = int64_t{1} << 50;
    options->page_locked_bytes = 1000;
  });
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT((*model)->warnings(),
              ::testing::ElementsAre(::testing::StartsWith("--snapshot-page-locked-memory: 1000 bytes are not used"),
                                     ::testing::AllOf(::testing::StartsWith("--state-memory: "),
                                                      ::testing::HasSubstr("and 4, one for each")),
                                     ::testing::StartsWith("--prefix-cache-memory: ")));
  EXPECT_EQ((*model)->served().prefix_cache->disk_bytes(), 0) << "there is no disk, and host memory is not another";
  const auto usual = LoadWith([](HostedModelOptions*) {});
  ASSERT_TRUE(usual.ok()) << usual.status();
  EXPECT_THAT((*usual)->warnings(), ::testing::IsEmpty());
}

TEST(HostedModel, SpilledPrefixes_AreBoundedByTheDiskSpaceToo) {
  testing::TempDir dir;
  const auto load = [&dir](int64_t disk_bytes) {
    return LoadWith([&](HostedModelOptions* options) {
      options->sessions->dir = dir.File("sessions");
      options->sessions->disk_bytes = disk_bytes;
      options->prefix_cache.memory_bytes = int64_t{32} << 20;
    });
  };
  EXPECT_EQ(load(0).value()->served().prefix_cache->disk_bytes(), int64_t{256} << 20);
  EXPECT_EQ(load(int64_t{100} << 20).value()->served().prefix_cache->disk_bytes(), int64_t{100} << 20);
}

TEST(HostedModel, PromptsThatNeverComeAgain_TakeTheMemoryAndTheDiskThatIsSaid) {
  testing::TempDir dir;
  const auto model = LoadWith([&dir](HostedModelOptions* options) {
    options->sessions->dir = dir.File("sessions");
    options->prefix_cache.memory_bytes = int64_t{8} << 20;
    options->prefix_cache.disk_bytes = int64_t{16} << 20;
  });
  ASSERT_TRUE(model.ok()) << model.status();
  testing::TestServer server;
  server.server().Serve(&(*model)->served());
  const auto stub = server.Generation();
  // STATEHOUSE_PROMPTS: to look at it for longer.
  const char* const asked = std::getenv("STATEHOUSE_PROMPTS");
  const int prompts = asked == nullptr ? 150 : std::atoi(asked);
  std::mt19937 random(1);
  int64_t resident = 0;
  for (int idx = 0; idx < prompts; ++idx) {
    if (idx == 20) resident = ResidentBytes();  // what is taken once has been taken
    grpc::ClientContext context;
    v1::GenerateRequest request;
    v1::GenerateResponse response;
    for (int token = 0; token < 40; ++token) request.mutable_token_ids()->add_ids(static_cast<int>(3 + random() % 400));
    request.mutable_stop()->set_max_tokens(2);
    ASSERT_TRUE(stub->GenerateOnce(&context, request, &response).ok());
  }
  const PrefixCache& cache = *(*model)->served().prefix_cache;
  const SnapshotVault& vault = *(*model)->served().vault;
  const auto on = [&vault](Tier tier) { return vault.totals()[static_cast<size_t>(tier)]; };
  EXPECT_TRUE(testing::Eventually([&] { return on(Tier::kHost).snapshots == 0; }))
      << "they are in the cache's own memory";
  EXPECT_TRUE(testing::Eventually([&] { return on(Tier::kDisk).snapshots == cache.totals().kept.spilled; }));
  EXPECT_LE(cache.totals().kept.bytes, cache.memory_bytes());
  EXPECT_LE(cache.totals().kept.spilled_bytes, cache.disk_bytes());
  EXPECT_LE(on(Tier::kDisk).bytes, cache.disk_bytes());
  EXPECT_GT(cache.totals().kept.evictions, 0);
  const int64_t more = ResidentBytes() - resident;
  std::printf("%d prompts: %ld snapshots kept in %ld bytes, %ld on disk in %ld, %ld evicted; resident %ld, %ld more\n",
              prompts, static_cast<long>(cache.totals().kept.snapshots), static_cast<long>(cache.totals().kept.bytes),
              static_cast<long>(on(Tier::kDisk).snapshots), static_cast<long>(on(Tier::kDisk).bytes),
              static_cast<long>(cache.totals().kept.evictions), static_cast<long>(ResidentBytes()),
              static_cast<long>(more));
  EXPECT_LT(more, int64_t{64} << 20);
}

}  // namespace
}  // namespace statehouse
