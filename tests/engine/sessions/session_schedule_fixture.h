// What a schedule of sessions runs on: a real model and its engine, and a store on a disk that crashes and tiers that
// fail, all of which can be closed and opened again.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/sessions/local_archive.h"
#include "engine/sessions/session_store.h"
#include "kernels/parallel/thread_pool.h"
#include "models/model.h"
#include "tests/engine/engine_fixture.h"
#include "tests/support/crash_files.h"
#include "tests/support/faulty_blobs.h"

namespace statehouse::testing {

class ScheduleFixture : public ::testing::Test {
 protected:
  using Tokens = std::vector<int32_t>;
  static constexpr int32_t kVocab = 300;
  struct Plain {  // all that the plain model knows of a session
    Tokens tokens;
    Durability durability;
  };

  void LoadModelAndEngine(int64_t switch_over, int64_t max_rows);
  void CloseAll() {
    store_.reset();
    vault_.reset();
    archive_.reset();
  }
  void OpenAll();
  void Restart(bool power_goes);
  SlotShape shape() const { return {model_->retention(), model_->config().num_layers}; }
  std::unique_ptr<Request> MakeTurn(const Tokens& prompt, int64_t max_tokens, uint64_t seed, const std::string& stop);
  // Runs all until the first ends; cancels that one after `steps` steps if that is not negative.
  ReadStream Run(std::unique_ptr<Request> request, int64_t steps, int64_t num_mates);

  kernels::ThreadPool pool_{1};
  std::unique_ptr<Model> model_;
  const FakeVocabulary vocabulary_ = LetterVocabulary(kVocab);
  std::unique_ptr<Engine> engine_;
  std::mt19937 random_;
  std::unique_ptr<CrashFiles> files_;
  std::unique_ptr<FaultyBlobs> disk_;
  std::unique_ptr<FaultyBlobs> shared_;
  std::unique_ptr<LocalArchive> archive_;
  std::unique_ptr<SnapshotVault> vault_;
  std::unique_ptr<SessionStore> store_;
  int64_t max_snapshots_ = 1;
  int64_t host_bytes_ = 0;
  std::map<std::string, Plain> plain_;
};

inline void ScheduleFixture::LoadModelAndEngine(int64_t switch_over, int64_t max_rows) {
  engine_.reset();
  LoadOptions load;
  load.chunk = 16;
  load.switch_over = switch_over;
  auto model = LoadModel(STATEHOUSE_SOURCE_DIR "/tests/golden/models/powercoder-tiny", load, &pool_);
  ASSERT_TRUE(model.ok()) << model.status();
  model_ = *std::move(model);
  auto engine = Engine::Create(model_.get(), &vocabulary_, {.max_num_seqs = 4, .max_num_batched_tokens = max_rows});
  ASSERT_TRUE(engine.ok()) << engine.status();
  engine_ = *std::move(engine);
}

inline void ScheduleFixture::OpenAll() {
  auto archive = LocalArchive::Open(files_.get(), "sessions", /*max_open_files=*/2);
  ASSERT_TRUE(archive.ok()) << archive.status();
  archive_ = *std::move(archive);
  SnapshotVaultOptions vault_options;
  vault_options.host_bytes = host_bytes_;
  auto vault = SnapshotVault::Create(vault_options, Fingerprint::Of(*model_, 0), shape(), disk_.get(), shared_.get());
  ASSERT_TRUE(vault.ok()) << vault.status();
  vault_ = *std::move(vault);
  SessionStoreOptions options;
  options.chunk = 16;
  options.max_snapshots = max_snapshots_;
  options.archive = archive_.get();
  options.vault = vault_.get();
  options.max_open_sessions = 2;
  options.max_replay_tokens = 1 << 20;  // a dead disk would keep turns from being acknowledged
  options.upkeep_thread = false;
  auto store = SessionStore::Open(options);
  ASSERT_TRUE(store.ok()) << store.status();
  store_ = *std::move(store);
}

inline void ScheduleFixture::Restart(bool power_goes) {
  if (power_goes) files_->power_off_in = 0;
  CloseAll();
  files_->Crash();
  disk_->SetDead(false);
  std::erase_if(plain_, [](const auto& session) { return session.second.durability == Durability::kMemory; });
  OpenAll();
}

inline std::unique_ptr<Request> ScheduleFixture::MakeTurn(const Tokens& prompt, int64_t max_tokens, uint64_t seed,
                                                          const std::string& stop) {
  auto request = MakeRequest(prompt, max_tokens);
  request->sampling.seed = seed;
  request->num_logprobs = 2;
  request->stop.ignore_eos = true;
  if (!stop.empty()) request->stop.stop = {stop};
  return request;
}

inline ReadStream ScheduleFixture::Run(std::unique_ptr<Request> request, int64_t steps, int64_t num_mates) {
  std::vector<std::shared_ptr<EventStream>> mates;
  for (int64_t mate = 0; mate < num_mates; ++mate) {
    auto stream = engine_->Submit(MakeTurn(MakePrompt(1 + random_() % 60, random_(), kVocab), 20, random_(), ""));
    if (stream.ok()) mates.push_back(*stream);
  }
  auto stream = engine_->Submit(std::move(request));
  EXPECT_TRUE(stream.ok()) << stream.status();
  ReadStream read;
  for (int64_t step = 0; stream.ok() && !read.done; ++step) {
    if (step == steps) (*stream)->Cancel();
    engine_->RunStep();
    Drain(stream->get(), &read);
  }
  for (const auto& mate : mates) mate->Cancel();
  while (engine_->RunStep()) {
  }
  return read;
}

}  // namespace statehouse::testing
