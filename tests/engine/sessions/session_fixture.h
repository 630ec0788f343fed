// A SessionStore on an archive and a vault in memory, and turns without a model.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/sessions/memory_archive.h"
#include "engine/sessions/session_store.h"
#include "engine/state/fingerprint.h"
#include "tests/support/fake_clock.h"
#include "tests/support/memory_vault.h"

namespace statehouse::testing {

using Tokens = std::vector<int32_t>;

inline SessionSpec Named(const char* principal, const char* name) {
  SessionSpec spec;
  spec.principal = principal;
  spec.name = name;
  return spec;
}

// A slot of one layer in rows form, never folded: any position can be taken back to any other.
inline SlotShape FakeShape() {
  kernels::RetentionShape shape;
  shape.heads_q = 1;
  shape.heads_kv = 1;
  shape.head_dim = 8;
  shape.chunk = 16;
  shape.switch_over = kernels::kNeverSwitch;
  shape.max_tail_tokens = 64;
  return {*kernels::RetentionLayout::Make(shape), 1};
}

class SessionStoreTest : public ::testing::Test {
 protected:
  SessionStoreTest() {
    here_.identity.num_layers = 1;
    here_.identity.heads_q = here_.identity.heads_kv = 1;
    here_.identity.head_dim = 8;
    here_.identity.degree = 2;
    here_.identity.vocab_size = 100;
    here_.identity.chunk = 16;
    here_.identity.switch_over = kernels::kNeverSwitch;
    vault_ = std::make_unique<MemoryVault>(here_, FakeShape());
    options_.clock = &clock_;
    options_.archive = &archive_;
    options_.vault = vault_.get();
    options_.upkeep_thread = false;
  }

  std::unique_ptr<SessionStore> OpenStore() {
    auto store = SessionStore::Open(options_);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }
  static std::shared_ptr<const Snapshot> FakeSnapshot(Tokens tokens) {
    const SlotShape shape = FakeShape();
    SnapshotPoint point;
    point.position = static_cast<int64_t>(tokens.size());
    point.used_floats = shape.layout.UsedHeadFloats(point.position);
    kernels::AlignedBuffer regions;
    EXPECT_TRUE(regions.Allocate(point.used_floats * shape.num_regions() * static_cast<int64_t>(sizeof(float))));
    return std::make_shared<const Snapshot>(shape, point, std::move(regions), std::vector<float>(), std::move(tokens));
  }
  static int64_t FakeSnapshotBytes(int64_t position) {
    return FakeSnapshot(Tokens(static_cast<size_t>(position)))->bytes();
  }
  static absl::StatusOr<std::unique_ptr<Turn>> Begin(SessionStore* store, const std::string& principal,
                                                     const std::string& ref, const Tokens& input,
                                                     const std::string& key = "") {
    TurnRequest request;
    request.principal = principal;
    request.ref = ref;
    request.input = input;
    request.idempotency_key = key;
    request.seed = 1;
    return store->BeginTurn(request);
  }
  // A whole turn, with snapshots at `positions` of the session.
  static absl::StatusOr<TurnOutcome> RunTurn(SessionStore* store, const std::string& principal, const std::string& ref,
                                             const Tokens& input, const Tokens& answer,
                                             const std::vector<int64_t>& positions = {}, const std::string& key = "") {
    auto turn = Begin(store, principal, ref, input, key);
    if (!turn.ok()) return turn.status();
    if ((*turn)->repeated().has_value()) return *(*turn)->repeated();
    Tokens all = (*turn)->prompt();
    all.insert(all.end(), answer.begin(), answer.end());
    std::vector<std::shared_ptr<const Snapshot>> snapshots;
    for (const int64_t position : positions) snapshots.push_back(FakeSnapshot({all.begin(), all.begin() + position}));
    return (*turn)->Commit({.tokens = answer, .seed = (*turn)->seed(), .detail = ""}, snapshots);
  }
  static Tokens TokensOf(SessionStore* store, const std::string& principal, const std::string& ref) {
    const auto transcript = store->Transcript(principal, ref, 0, INT64_MAX);
    EXPECT_TRUE(transcript.ok()) << transcript.status();
    return transcript.ok() ? transcript->tokens : Tokens();
  }

  FakeClock clock_;
  MemoryArchive archive_;
  Fingerprint here_;
  std::unique_ptr<MemoryVault> vault_;
  SessionStoreOptions options_;
};

}  // namespace statehouse::testing
