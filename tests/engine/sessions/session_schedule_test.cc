// Random schedules of everything that can happen to sessions, on a real model, against a plain model that only ever
// computes from scratch: the tokens and log probabilities are the same, bit for bit.
//
// A schedule: turns (cut into chunks, among batch mates, cancelled, with stop strings, retried after a crash in
// mid-turn or around their commit), n > 1 from a session's snapshot, forks, rewinds (which take rows back), snapshots
// that are pushed out of memory, lost or damaged, tiers that die, restarts, power that goes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "engine/sessions/local_archive.h"
#include "engine/sessions/session_store.h"
#include "kernels/parallel/thread_pool.h"
#include "models/model.h"
#include "tests/engine/engine_fixture.h"
#include "tests/support/crash_files.h"
#include "tests/support/faulty_blobs.h"

namespace statehouse::testing {
namespace {

using Tokens = std::vector<int32_t>;
constexpr int32_t kVocab = 300;
constexpr int64_t kSlots = 4;

struct Counts {
  int64_t turns = 0;
  int64_t reused = 0;    // tokens restored instead of computed
  int64_t repeated = 0;  // turns whose first outcome came back
  int64_t resumed = 0;   // turns computed again after a crash, from their record of intent
  int64_t stopped = 0;   // by a stop string
  int64_t cancelled = 0;
  int64_t forked = 0;
  int64_t rewound = 0;
  int64_t branched = 0;  // outputs of n > 1
  int64_t restarts = 0;
  int64_t not_nearest = 0;  // turns that started from an older snapshot than they might have
};

class ScheduleTest : public ::testing::Test {
 protected:
  void LoadModelAndEngine(int64_t switch_over, int64_t max_rows);
  void RunSchedule(uint32_t seed);

  struct Plain {
    Tokens tokens;
    Durability durability;
  };
  struct Wanted {  // of a turn
    std::string name;
    Tokens input;
    Tokens prompt;
    uint64_t seed = 0;
    std::string key;
    int64_t max_tokens = 0;
    std::string stop;
  };
  enum class Attempt { kDone, kAgain, kFailed };
  using Drafts = std::vector<std::shared_ptr<SnapshotDraft>>;

  // --- what a schedule is made of ---
  void OpenAll();
  void Restart(bool power_goes);
  void Turn(const std::string& name);
  Attempt TryTurn(const Wanted& wanted, bool is_first, const ReadOutput& expected, Plain* plain);
  std::unique_ptr<Request> OrderTurn(const statehouse::Turn& turn, const Wanted& wanted, Drafts* drafts);
  void Branch(const std::string& name);
  void Fork(const std::string& name);
  void Rewind(const std::string& name);
  void Disturb();
  void ExpectTokensAsInThePlainModel();

  std::unique_ptr<Request> MakeTurn(const Tokens& prompt, int64_t max_tokens, uint64_t seed, const std::string& stop);
  // Runs all until the first ends; cancels that one after `steps` steps if that is not negative.
  ReadStream Run(std::unique_ptr<Request> request, int64_t steps, int64_t num_mates);
  static void ExpectSameBits(const ReadOutput& output, const ReadOutput& expected, bool may_be_shorter);

  kernels::ThreadPool pool_{1};
  std::unique_ptr<Model> model_;
  const FakeVocabulary vocabulary_ = LetterVocabulary(kVocab);
  std::unique_ptr<Engine> engine_;
  std::mt19937 random_;
  Counts counts_;

  std::unique_ptr<CrashFiles> files_;
  std::unique_ptr<FaultyBlobs> disk_;
  std::unique_ptr<FaultyBlobs> shared_;
  std::unique_ptr<LocalArchive> archive_;
  std::unique_ptr<SnapshotVault> vault_;
  std::unique_ptr<SessionStore> store_;
  int64_t max_snapshots_ = 1;
  int64_t host_bytes_ = 0;
  std::map<std::string, Plain> plain_;
  int64_t next_key_ = 0;
};

void ScheduleTest::LoadModelAndEngine(int64_t switch_over, int64_t max_rows) {
  engine_.reset();
  LoadOptions load;
  load.chunk = 16;
  load.switch_over = switch_over;
  auto model = LoadModel(STATEHOUSE_SOURCE_DIR "/tests/golden/models/powercoder-tiny", load, &pool_);
  ASSERT_TRUE(model.ok()) << model.status();
  model_ = *std::move(model);
  auto engine =
      Engine::Create(model_.get(), &vocabulary_, {.max_num_seqs = kSlots, .max_num_batched_tokens = max_rows});
  ASSERT_TRUE(engine.ok()) << engine.status();
  engine_ = *std::move(engine);
}

void ScheduleTest::OpenAll() {
  auto archive = LocalArchive::Open(files_.get(), "sessions", /*max_open_files=*/2);
  ASSERT_TRUE(archive.ok()) << archive.status();
  archive_ = *std::move(archive);
  const SlotShape shape{model_->retention(), model_->config().num_layers};
  SnapshotVaultOptions vault_options;
  vault_options.host_bytes = host_bytes_;
  auto vault = SnapshotVault::Create(vault_options, Fingerprint::Of(*model_, 0), shape, disk_.get(), shared_.get());
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

void ScheduleTest::Restart(bool power_goes) {
  ++counts_.restarts;
  if (power_goes) files_->power_off_in = 0;
  store_.reset();
  vault_.reset();
  archive_.reset();
  files_->Crash();
  disk_->SetDead(false);
  std::erase_if(plain_, [](const auto& session) { return session.second.durability == Durability::kMemory; });
  OpenAll();
}

std::unique_ptr<Request> ScheduleTest::MakeTurn(const Tokens& prompt, int64_t max_tokens, uint64_t seed,
                                                const std::string& stop) {
  auto request = MakeRequest(prompt, max_tokens);
  request->sampling.seed = seed;
  request->num_logprobs = 2;
  request->stop.ignore_eos = true;
  if (!stop.empty()) request->stop.stop = {stop};
  return request;
}

ReadStream ScheduleTest::Run(std::unique_ptr<Request> request, int64_t steps, int64_t num_mates) {
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

void ScheduleTest::ExpectSameBits(const ReadOutput& output, const ReadOutput& expected, bool may_be_shorter) {
  ASSERT_LE(output.tokens.size(), expected.tokens.size());
  ASSERT_TRUE(may_be_shorter || output.tokens.size() == expected.tokens.size());
  ASSERT_TRUE(std::equal(output.tokens.begin(), output.tokens.end(), expected.tokens.begin()));
  for (size_t idx = 0; idx < output.tokens.size(); ++idx) {
    const Event& event = output.events[idx];
    const Event& same = expected.events[idx];
    ASSERT_EQ(std::memcmp(&event.logprob, &same.logprob, sizeof(float)), 0) << "the bits of token " << idx << " differ";
    ASSERT_EQ(event.num_top, same.num_top);
    for (int32_t top = 0; top < event.num_top; ++top) {
      ASSERT_EQ(std::memcmp(&event.top[top], &same.top[top], sizeof(TokenLogprob)), 0) << "token " << idx;
    }
  }
}

std::unique_ptr<Request> ScheduleTest::OrderTurn(const statehouse::Turn& turn, const Wanted& wanted, Drafts* drafts) {
  auto request = MakeTurn(turn.prompt(), wanted.max_tokens, turn.seed(), wanted.stop);
  request->from = turn.from();
  const int64_t restored = request->from == nullptr ? 0 : request->from->position();
  const auto order = [&](int64_t position) {
    drafts->push_back(*SnapshotDraft::Reserve({model_->retention(), model_->config().num_layers}, kVocab));
    request->snapshots.push_back({position, drafts->back()});
  };
  const int64_t prompt_size = static_cast<int64_t>(turn.prompt().size());
  if (random_() % 3 == 0) {
    for (const int64_t position : turn.SnapshotPositions()) order(position);
  } else if (random_() % 3 == 0) {
    order(restored + 1 + static_cast<int64_t>(random_()) % (prompt_size - restored));
  }
  order(SnapshotOrder::kAtEnd);
  return request;
}

// The first attempt at a turn may be cancelled, or end in a crash before or while it is committed; then another
// follows.
ScheduleTest::Attempt ScheduleTest::TryTurn(const Wanted& wanted, bool is_first, const ReadOutput& expected,
                                            Plain* plain) {
  TurnRequest ask;
  ask.principal = "ann";
  ask.ref = wanted.name;
  ask.input = wanted.input;
  ask.seed = is_first ? wanted.seed : random_();  // of a retry the first one counts
  ask.idempotency_key = wanted.key;
  auto turn = store_->BeginTurn(ask);
  EXPECT_TRUE(turn.ok()) << turn.status();
  if (!turn.ok()) return Attempt::kFailed;
  EXPECT_EQ((*turn)->prompt(), wanted.prompt);
  EXPECT_EQ((*turn)->seed(), wanted.seed);
  if ((*turn)->repeated().has_value()) {
    ++counts_.repeated;
    EXPECT_EQ((*turn)->repeated()->tokens, expected.tokens);
    plain->tokens = wanted.prompt;
    plain->tokens.insert(plain->tokens.end(), expected.tokens.begin(), expected.tokens.end());
    return Attempt::kDone;
  }
  counts_.resumed += is_first ? 0 : 1;
  counts_.not_nearest += (*turn)->why_not_nearer().empty() ? 0 : 1;
  counts_.reused += (*turn)->from() == nullptr ? 0 : (*turn)->from()->position();
  Drafts drafts;
  auto request = OrderTurn(**turn, wanted, &drafts);
  const bool may_crash = is_first && plain->durability == Durability::kSync;
  const bool crashes = may_crash && random_() % 8 == 0;
  const bool cancelled = is_first && !crashes && random_() % 5 == 0;
  const ReadStream read = Run(std::move(request), cancelled || crashes ? random_() % 10 : -1, random_() % 3);
  const ReadOutput& output = read.outputs[0];
  ExpectSameBits(output, expected, cancelled || crashes);
  counts_.stopped += output.end.stop_index >= 0 ? 1 : 0;
  if (crashes) {  // in mid-answer
    turn->reset();
    Restart(/*power_goes=*/true);
    return Attempt::kAgain;
  }
  if (cancelled && random_() % 2 == 0) {  // the caller wants the session as it was
    ++counts_.cancelled;
    return Attempt::kDone;
  }
  Tokens all = wanted.prompt;
  all.insert(all.end(), output.tokens.begin(), output.tokens.end());
  std::vector<std::shared_ptr<const Snapshot>> snapshots;
  for (const auto& draft : drafts) {
    if (draft->filled()) snapshots.push_back(draft->Seal(all));
  }
  const bool fails = may_crash && !cancelled && random_() % 6 == 0;
  if (fails) files_->power_off_in = random_() % 4;
  const auto committed = (*turn)->Commit({.tokens = output.tokens, .seed = wanted.seed, .detail = ""}, snapshots);
  turn->reset();
  EXPECT_TRUE(committed.ok() || fails) << committed.status();
  if (fails) Restart(/*power_goes=*/true);
  if (!committed.ok()) return Attempt::kAgain;
  plain->tokens = std::move(all);
  return Attempt::kDone;
}

void ScheduleTest::Turn(const std::string& name) {
  Plain& plain = plain_.at(name);
  Wanted wanted;
  wanted.name = name;
  wanted.input = MakePrompt(1 + random_() % 25, random_(), kVocab);
  wanted.prompt = plain.tokens;
  wanted.prompt.insert(wanted.prompt.end(), wanted.input.begin(), wanted.input.end());
  wanted.seed = random_();
  wanted.key = absl::StrCat("key ", next_key_++);
  wanted.max_tokens = 1 + random_() % 12;
  if (random_() % 3 == 0) wanted.stop = std::string(1, static_cast<char>('a' + random_() % 26));
  const ReadStream scratch = Run(MakeTurn(wanted.prompt, wanted.max_tokens, wanted.seed, wanted.stop), -1, 0);
  Attempt attempt = Attempt::kAgain;
  for (bool is_first = true; attempt == Attempt::kAgain && !HasFailure(); is_first = false) {
    attempt = TryTurn(wanted, is_first, scratch.outputs[0], &plain);
  }
  ++counts_.turns;
}

// Several answers to one input, none of which is kept.
void ScheduleTest::Branch(const std::string& name) {
  const Tokens input = MakePrompt(1 + random_() % 10, random_(), kVocab);
  TurnRequest wanted;
  wanted.principal = "ann";
  wanted.ref = name;
  wanted.input = input;
  auto turn = store_->BeginTurn(wanted);
  ASSERT_TRUE(turn.ok()) << turn.status();
  const uint64_t seed = random_();
  auto request = MakeTurn((*turn)->prompt(), 6, seed, "");
  request->from = (*turn)->from();
  request->n = 3;
  const ReadStream read = Run(std::move(request), -1, random_() % 2);
  auto from_scratch = MakeTurn((*turn)->prompt(), 6, seed, "");
  from_scratch->n = 3;
  const ReadStream scratch = Run(std::move(from_scratch), -1, 0);
  for (size_t output = 0; output < 3; ++output) {
    ExpectSameBits(read.outputs[output], scratch.outputs[output], false);
    if (HasFatalFailure()) return;
    ++counts_.branched;
  }
}

void ScheduleTest::Fork(const std::string& name) {
  const Plain source = plain_.at(name);
  const int64_t position = static_cast<int64_t>(random_() % (source.tokens.size() + 1));
  SessionSpec spec;
  spec.principal = "ann";
  spec.name = absl::StrCat("fork ", next_key_++);
  spec.durability = random_() % 4 == 0 ? Durability::kMemory : Durability::kSync;
  const auto fork = store_->Fork("ann", name, position, spec);
  ASSERT_TRUE(fork.ok()) << fork.status();
  plain_[spec.name] = {Tokens(source.tokens.begin(), source.tokens.begin() + position), spec.durability};
  ++counts_.forked;
}

void ScheduleTest::Rewind(const std::string& name) {
  Tokens& tokens = plain_.at(name).tokens;
  // Mostly a few rows, as drafts and edits take back.
  const uint64_t back = random_() % 2 == 0 ? random_() % 20 : random_() % (tokens.size() + 1);
  const int64_t position = static_cast<int64_t>(tokens.size() - std::min<uint64_t>(back, tokens.size()));
  const auto cost = store_->Rewind("ann", name, position, false);
  ASSERT_TRUE(cost.ok()) << cost.status();
  EXPECT_EQ(cost->snapshot_position + cost->tokens_to_compute, position);
  tokens.resize(static_cast<size_t>(position));
  ++counts_.rewound;
}

// Things that must cost time and change nothing.
void ScheduleTest::Disturb() {
  switch (random_() % 4) {
    case 0:
      return disk_->SetDead(random_() % 2 == 0);
    case 1:
      return disk_->FlipABit(std::string(1, "0123456789abcdef"[random_() % 16]));
    case 2:
      (void)store_->Upkeep();
      return;
    default:
      // Everybody is pushed out of memory.
      for (const auto& [name, plain] : plain_) (void)store_->Get("ann", name);
  }
}

void ScheduleTest::ExpectTokensAsInThePlainModel() {
  for (const auto& [name, plain] : plain_) {
    const auto transcript = store_->Transcript("ann", name, 0, INT64_MAX);
    ASSERT_TRUE(transcript.ok()) << name << ": " << transcript.status();
    ASSERT_EQ(transcript->tokens, plain.tokens) << name;
  }
  ASSERT_EQ(store_->List("ann", {}, "", 1000)->sessions.size(), plain_.size());
}

void ScheduleTest::RunSchedule(uint32_t seed) {
  random_.seed(seed);
  store_.reset();
  vault_.reset();
  archive_.reset();
  files_ = std::make_unique<CrashFiles>(seed);
  disk_ = std::make_unique<FaultyBlobs>("disk");
  shared_ = random_() % 2 == 0 ? std::make_unique<FaultyBlobs>("store") : nullptr;
  max_snapshots_ = 1 + random_() % 5;
  host_bytes_ = random_() % 2 == 0 ? int64_t{1} << 30 : 100 << 10;
  plain_.clear();
  OpenAll();
  if (HasFatalFailure()) return;
  SessionSpec spec;
  spec.principal = "ann";
  spec.name = "first";
  ASSERT_TRUE(store_->Create(spec).ok());
  plain_["first"] = {{}, Durability::kSync};
  for (int event = 0; event < 10 && !HasFailure(); ++event) {
    auto session = plain_.begin();
    std::advance(session, random_() % plain_.size());
    const std::string name = session->first;
    const uint32_t kind = random_() % 16;
    if (kind == 0) {
      Fork(name);
    } else if (kind <= 2) {
      Rewind(name);
    } else if (kind == 3) {
      Branch(name);
    } else if (kind <= 5) {
      Disturb();
    } else if (kind == 6) {
      Restart(/*power_goes=*/random_() % 2 == 0);
    } else {
      Turn(name);
    }
    if (!HasFatalFailure()) ExpectTokensAsInThePlainModel();
  }
  const EngineStatus status = engine_->GetStatus();
  EXPECT_EQ(status.slots_used, 0);
  EXPECT_EQ(status.slots_zeroing, 0) << "freed slots are zeroed before they count as free (slot_pool_test)";
}

TEST_F(ScheduleTest, RandomSchedules_EqualRunningEverythingFromScratch) {
  const char* soak = std::getenv("STATEHOUSE_SOAK_SECONDS");
  const char* one = std::getenv("STATEHOUSE_SCHEDULE");  // its seed
  const int64_t schedules = soak != nullptr && std::atoi(soak) > 0 ? 10000 : 300;
  const int64_t first = one == nullptr ? 0 : std::atoi(one);
  for (int64_t idx = first; idx < (one == nullptr ? schedules : first + 1); ++idx) {
    if (idx % 50 == 0 || idx == first) {
      const int64_t block = idx / 50;
      LoadModelAndEngine(block % 3 == 0 ? 0 : block % 3 == 1 ? 48 : kernels::kSwitchOverAuto, 8 + block * 50 % 37);
      ASSERT_FALSE(HasFailure());
    }
    RunSchedule(static_cast<uint32_t>(idx));
    ASSERT_FALSE(HasFailure()) << "schedule " << idx << " (its seed)";
  }
  const auto show = [](const char* what, int64_t count) { std::printf("  %-12s %lld\n", what, (long long)count); };
  std::printf("%lld schedules, seeds %lld …\n", static_cast<long long>(one == nullptr ? schedules : 1),
              static_cast<long long>(first));
  show("turns", counts_.turns);
  show("reused", counts_.reused);
  show("repeated", counts_.repeated);
  show("resumed", counts_.resumed);
  show("stopped", counts_.stopped);
  show("cancelled", counts_.cancelled);
  show("forked", counts_.forked);
  show("rewound", counts_.rewound);
  show("branched", counts_.branched);
  show("restarts", counts_.restarts);
  show("not nearest", counts_.not_nearest);
  if (one != nullptr) return;
  EXPECT_GT(counts_.reused, counts_.turns * 5);
  for (const int64_t count : {counts_.repeated, counts_.resumed, counts_.stopped, counts_.cancelled, counts_.forked,
                              counts_.rewound, counts_.branched, counts_.restarts, counts_.not_nearest}) {
    EXPECT_GT(count, 10) << "a kind of event that hardly happens is hardly tested";
  }
}

}  // namespace
}  // namespace statehouse::testing
