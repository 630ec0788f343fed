// Random schedules of everything that can happen to sessions, on a real model, against a plain model that only ever
// computes from scratch: the tokens and log probabilities are the same, bit for bit.
//
// A schedule: turns (cut into chunks, among batch mates, cancelled, with stop strings, retried after a crash in
// mid-turn or around their commit), n > 1 from a session's snapshot, forks, rewinds (which take rows back), snapshots
// that are pushed out of memory, lost or damaged, tiers that die, restarts, power that goes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "absl/strings/str_cat.h"
#include "tests/engine/sessions/session_schedule_fixture.h"

namespace statehouse::testing {
namespace {

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

class ScheduleTest : public ScheduleFixture {
 protected:
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

  void RunSchedule(uint32_t seed);
  void RunEvent(const std::string& name);
  void Turn(const std::string& name);
  Attempt TryTurn(const Wanted& wanted, bool is_first, const ReadOutput& expected, Plain* plain);
  std::unique_ptr<Request> OrderTurn(const statehouse::Turn& turn, const Wanted& wanted, Drafts* drafts);
  void Branch(const std::string& name);
  void Fork(const std::string& name);
  void Rewind(const std::string& name);
  void Disturb();
  void ExpectTokensAsInThePlainModel();
  void PrintCounts(int64_t schedules, int64_t first) const;

  Counts counts_;
  int64_t next_key_ = 0;
};

std::unique_ptr<Request> ScheduleTest::OrderTurn(const statehouse::Turn& turn, const Wanted& wanted, Drafts* drafts) {
  auto request = MakeTurn(turn.prompt(), wanted.max_tokens, turn.seed(), wanted.stop);
  request->from = turn.from();
  const int64_t restored = request->from == nullptr ? 0 : request->from->position();
  const auto order = [&](int64_t position) {
    drafts->push_back(*SnapshotDraft::Reserve(shape(), kVocab));
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
  EXPECT_TRUE(SameBits(output, expected, cancelled || crashes));
  counts_.stopped += output.end.stop_index >= 0 ? 1 : 0;
  if (crashes) {  // in mid-answer
    turn->reset();
    ++counts_.restarts;
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
    ASSERT_TRUE(SameBits(read.outputs[output], scratch.outputs[output]));
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

void ScheduleTest::RunEvent(const std::string& name) {
  const uint32_t kind = random_() % 16;
  if (kind == 0) return Fork(name);
  if (kind <= 2) return Rewind(name);
  if (kind == 3) return Branch(name);
  if (kind <= 5) return Disturb();
  if (kind >= 7) return Turn(name);
  ++counts_.restarts;
  Restart(/*power_goes=*/random_() % 2 == 0);
}

void ScheduleTest::RunSchedule(uint32_t seed) {
  random_.seed(seed);
  CloseAll();
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
    RunEvent(name);
    if (!HasFatalFailure()) ExpectTokensAsInThePlainModel();
  }
  const EngineStatus status = engine_->GetStatus();
  EXPECT_EQ(status.slots_used, 0);
  EXPECT_EQ(status.slots_zeroing, 0) << "freed slots are zeroed before they count as free (slot_pool_test)";
}

void ScheduleTest::PrintCounts(int64_t schedules, int64_t first) const {
  const auto show = [](const char* what, int64_t count) { std::printf("  %-12s %lld\n", what, (long long)count); };
  std::printf("%lld schedules, seeds %lld …\n", static_cast<long long>(schedules), static_cast<long long>(first));
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
  PrintCounts(one == nullptr ? schedules : 1, first);
  if (one != nullptr) return;
  EXPECT_GT(counts_.reused, counts_.turns * 10);
  for (const int64_t count : {counts_.repeated, counts_.resumed, counts_.stopped, counts_.cancelled, counts_.forked,
                              counts_.rewound, counts_.branched, counts_.restarts, counts_.not_nearest}) {
    EXPECT_GT(count, 10) << "a kind of event that hardly happens is hardly tested";
  }
}

}  // namespace
}  // namespace statehouse::testing
