// A server with sessions over the real engine, a model and a vault in host memory; and the calls that tests make.
// Thread-safety: as the parts'.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/sessions/session_store.h"
#include "engine/state/snapshot_vault.h"
#include "kernels/parallel/thread_pool.h"
#include "models/model.h"
#include "statehouse/v1/sessions.grpc.pb.h"
#include "tests/support/fake_model.h"
#include "tests/support/server_fixture.h"

namespace statehouse::testing {

class SessionServer {
 public:
  // The fake model is quick; a real one (`golden`, of tests/golden/models) has states that a file can hold.
  explicit SessionServer(ServerOptions options = {}, const char* golden = nullptr) : model_(ModelOptions()) {
    Model* model = &model_;
    if (golden != nullptr) {
      auto loaded =
          LoadModel(std::string(STATEHOUSE_SOURCE_DIR "/tests/golden/models/") + golden, LoadOptions(), &pool_);
      EXPECT_TRUE(loaded.ok()) << loaded.status();
      real_model_ = *std::move(loaded);
      model = real_model_.get();
    }
    EngineOptions engine_options;
    engine_options.max_num_seqs = 4;
    auto engine = Engine::Create(model, &tokenizer_, engine_options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    engine_->Start();
    served_ = FakeServedModel(engine_.get(), &tokenizer_, model->config().vocab_size);
    served_.fingerprint = Fingerprint::Of(*model, tokenizer_.fingerprint());
    served_.slot_shape = SlotShape{model->retention(), model->config().num_layers};
    SnapshotVaultOptions vault_options;
    vault_options.host_bytes = int64_t{1} << 30;
    auto vault = SnapshotVault::Create(vault_options, served_.fingerprint, *served_.slot_shape, nullptr, nullptr);
    EXPECT_TRUE(vault.ok()) << vault.status();
    vault_ = *std::move(vault);
    SessionStoreOptions store_options;
    store_options.chunk = 8;
    store_options.vault = vault_.get();
    auto store = SessionStore::Open(store_options);
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    served_.sessions = store_.get();
    served_.vault = vault_.get();
    server_ = std::make_unique<TestServer>(options);
    EXPECT_TRUE(server_->status().ok()) << server_->status();
    server_->server().Serve(&served_);
    generation_ = server_->Generation();
    sessions_ = v1::Sessions::NewStub(server_->Channel());
  }
  ~SessionServer() { server_->Stop(); }

  static FakeModelOptions ModelOptions() {
    FakeModelOptions options;
    options.vocab_size = FakeTokenizer::kSize;
    options.eos_ids = {FakeTokenizer::kEos};
    return options;
  }

  FakeModel& model() { return model_; }
  Engine& engine() { return *engine_; }
  SessionStore& store() { return *store_; }
  ServedModel& served() { return served_; }
  TestServer& server() { return *server_; }
  v1::Generation::Stub& generation() { return *generation_; }
  v1::Sessions::Stub& sessions() { return *sessions_; }

 private:
  kernels::ThreadPool pool_{1};
  FakeModel model_;
  std::unique_ptr<Model> real_model_;  // null: the fake one
  FakeTokenizer tokenizer_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<SnapshotVault> vault_;
  std::unique_ptr<SessionStore> store_;
  ServedModel served_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<v1::Generation::Stub> generation_;
  std::unique_ptr<v1::Sessions::Stub> sessions_;
};

// A turn of `max_tokens` tokens with a seed of its own.
inline v1::GenerateRequest TurnOf(const std::string& session, const std::string& text, int max_tokens = 12,
                                  const std::string& key = "") {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_sampling()->set_seed(7);
  request.mutable_stop()->set_max_tokens(max_tokens);
  request.mutable_stop()->set_ignore_eos(true);
  request.mutable_session()->set_session(session);
  request.mutable_session()->set_create_if_missing(true);
  request.mutable_session()->set_idempotency_key(key);
  return request;
}

inline std::vector<int32_t> IdsOf(const v1::GenerateResponse& response) {
  if (response.outputs().empty()) return {};
  return {response.outputs(0).token_ids().begin(), response.outputs(0).token_ids().end()};
}

// Takes turns on a server of its own.
class SessionTurns : public ::testing::Test {
 protected:
  SessionTurns() {
    server_.model().on_forward = [this](const StepBatch&) {
      if (const int pause = step_pause_; pause > 0) std::this_thread::sleep_for(std::chrono::milliseconds(pause));
    };
  }

  v1::GenerateResponse Once(const v1::GenerateRequest& request, grpc::Status* status = nullptr) {
    grpc::ClientContext context;
    v1::GenerateResponse response;
    const grpc::Status ended = server_.generation().GenerateOnce(&context, request, &response);
    if (status != nullptr) {
      *status = ended;
    } else {
      EXPECT_TRUE(ended.ok()) << ended.error_message();
    }
    return response;
  }
  grpc::Status StatusOf(const v1::GenerateRequest& request) {
    grpc::Status status;
    Once(request, &status);
    return status;
  }
  std::vector<int32_t> TokensOf(const std::string& session) {
    auto transcript = server_.store().Transcript("", session, 0, 1 << 20);
    return transcript.ok() ? transcript->tokens : std::vector<int32_t>();
  }
  // From now on a step takes so long.
  void SlowSteps(int milliseconds) { step_pause_ = milliseconds; }

 private:
  std::atomic<int> step_pause_{0};  // the engine reads it

 protected:
  SessionServer server_;
};

}  // namespace statehouse::testing
