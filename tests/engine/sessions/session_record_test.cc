// Records: what is written is read, and nothing else is.
#include "engine/sessions/session_record.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/sessions/session.h"

namespace statehouse::testing {
namespace {

Checkpoint At(int64_t position, bool has_logits = false) {
  Checkpoint checkpoint;
  checkpoint.position = checkpoint.key_position = position;
  checkpoint.key = std::string(31, 'k') + static_cast<char>('a' + position % 26);
  checkpoint.exact_from = 1;
  checkpoint.bytes = 1000 + position;
  checkpoint.has_logits = has_logits;
  return checkpoint;
}

KeptTurn TurnOf(int64_t input_begin, int64_t answer_begin, int64_t end, const std::string& key) {
  KeptTurn turn;
  turn.input_begin = input_begin;
  turn.answer_begin = answer_begin;
  turn.end = end;
  turn.seed = 0xFEDCBA9876543210u;
  turn.key = key;
  turn.digest = "digest";
  turn.detail = std::string("a\0b", 3);
  turn.at = absl::FromUnixMicros(1'700'000'000'123'456);
  return turn;
}

std::vector<SessionRecord> Samples() {
  SessionContent content;
  content.tokens = {0, 1, 127, 128, 300000, INT32_MAX, 7};
  content.turns = {TurnOf(0, 2, 3, "one"), TurnOf(3, 5, 7, "")};
  content.checkpoints = {At(2), At(6, true)};
  TurnBegun begun;
  begun.key = "two";
  begun.seed = 9;
  begun.sampling = "temperature 1";
  begun.digest = "d";
  begun.input = {5, 6};
  begun.at = absl::FromUnixMicros(-5);
  content.begun = begun;
  TurnCommitted committed;
  committed.input = {1, 2};
  committed.answer = {3};
  committed.turn = TurnOf(0, 2, 3, "k");
  committed.checkpoints = {At(2)};
  TurnCommitted as_begun = committed;
  as_begun.as_begun = true;
  as_begun.input.clear();
  Rewound rewound;
  rewound.position = 4;
  rewound.checkpoints = {At(3)};
  return {SessionContent(), content, begun, committed, as_begun, rewound, CheckpointsChanged{{At(1), At(9)}}};
}

TEST(SessionRecord, EveryKind_IsReadAsItWasWritten) {
  for (const SessionRecord& record : Samples()) {
    const std::string bytes = EncodeRecord(record);
    const auto parsed = ParseRecord(bytes);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->index(), record.index());
    EXPECT_EQ(EncodeRecord(*parsed), bytes);
  }
  const auto content = std::get<SessionContent>(*ParseRecord(EncodeRecord(Samples()[1])));
  EXPECT_EQ(content.tokens.at(5), INT32_MAX);
  EXPECT_EQ(content.turns.at(0).seed, 0xFEDCBA9876543210u);
  EXPECT_EQ(content.turns.at(0).detail.size(), 3u);
  EXPECT_EQ(content.checkpoints.at(1).key, At(6).key);
  EXPECT_TRUE(content.checkpoints.at(1).has_logits);
  EXPECT_EQ(content.begun->at, absl::FromUnixMicros(-5));
}

TEST(SessionRecord, EveryTruncation_IsRefused_AndSoIsWhatFollows) {
  for (const SessionRecord& record : Samples()) {
    const std::string bytes = EncodeRecord(record);
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_FALSE(ParseRecord(bytes.substr(0, size)).ok()) << "kind " << record.index() << ", " << size << " bytes";
    }
    EXPECT_FALSE(ParseRecord(bytes + '\0').ok()) << "kind " << record.index();
  }
}

// Checksums stand before this; here only that nothing bad is believed or done.
TEST(SessionRecord, RandomDamage_IsRefusedOrReadsAsSomethingThatIsWrittenTheSame) {
  std::mt19937 random(1);
  const std::vector<SessionRecord> samples = Samples();
  int64_t refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = EncodeRecord(samples[random() % samples.size()]);
    for (uint32_t count = 1 + random() % 3; count > 0; --count) bytes[random() % bytes.size()] = random() % 256;
    const auto parsed = ParseRecord(bytes);
    if (!parsed.ok()) {
      ++refused;
      continue;
    }
    EXPECT_EQ(EncodeRecord(*parsed), bytes) << "there is one spelling only";
    SessionContent content = std::get<SessionContent>(samples[1]);
    (void)Replay(*parsed, &content);
  }
  EXPECT_GT(refused, 2000);
}

TEST(SessionRecord, ANewerFormat_IsNotCalledDamaged) {
  std::string bytes = EncodeRecord(Samples()[1]);
  bytes[0] = 2;
  EXPECT_EQ(ParseRecord(bytes).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(SessionRecord, Meta_IsReadAsItWasWrittenOrRefused) {
  SessionMeta meta;
  meta.labels = {{"a", "b"}, {"c", ""}};
  meta.ttl = absl::Minutes(3);
  meta.pinned = meta.shared = meta.has_base = true;
  meta.durability = Durability::kAsync;
  meta.created = meta.last_turn = absl::FromUnixSeconds(1'700'000'000);
  meta.family = std::string(32, 'f');
  meta.num_records = 12;
  const std::string bytes = EncodeMeta(meta);
  const auto parsed = ParseMeta(bytes);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(EncodeMeta(*parsed), bytes);
  EXPECT_EQ(parsed->labels, meta.labels);
  EXPECT_EQ(parsed->ttl, absl::Minutes(3));
  EXPECT_EQ(ParseMeta(EncodeMeta(SessionMeta()))->ttl, absl::InfiniteDuration());
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(ParseMeta(bytes.substr(0, size)).ok()) << size;
}

TEST(Session, RecordsThatDoNotFit_LeaveTheContentAsItWas) {
  SessionContent content;
  content.tokens = {1, 2, 3};
  TurnCommitted elsewhere;
  elsewhere.answer = {4};
  elsewhere.turn = TurnOf(2, 2, 3, "");
  TurnCommitted never_begun;
  never_begun.as_begun = true;
  never_begun.turn = TurnOf(3, 3, 3, "");
  Rewound beyond;
  beyond.position = 4;
  for (const SessionRecord& record :
       std::vector<SessionRecord>{elsewhere, never_begun, beyond, CheckpointsChanged{{At(4)}}}) {
    EXPECT_EQ(Replay(record, &content).code(), absl::StatusCode::kDataLoss) << record.index();
    EXPECT_EQ(content.tokens, (std::vector<int32_t>{1, 2, 3}));
  }
}

TEST(Session, OlderCheckpoints_AreSpacedByPowersOfFour) {
  std::vector<Checkpoint> all;
  for (int64_t position = 16; position <= 16 * 400; position += 16) all.push_back(At(position));
  std::vector<int64_t> kept;
  for (const Checkpoint& checkpoint : Merge(all, {}, 16, 5)) kept.push_back(checkpoint.position);
  EXPECT_EQ(kept, (std::vector<int64_t>{6400 - 1024, 6400 - 256, 6400 - 64, 6400 - 16, 6400}));
  EXPECT_EQ(SpacedPositions(0, 6400, 16, 3), (std::vector<int64_t>{6400 - 1024, 6400 - 256, 6400 - 64}));
  EXPECT_TRUE(SpacedPositions(6380, 6400, 16, 3).empty());
}

TEST(Session, TwoCheckpointsAtOnePosition_TheOneWithLogitsStays) {
  Checkpoint other = At(4);
  other.key = std::string(32, 'n');
  EXPECT_EQ(Merge(std::vector{At(4, true)}, std::vector{other}, 16, 8).at(0).key, At(4).key);
  EXPECT_EQ(Merge(std::vector{At(4)}, std::vector{other}, 16, 8).at(0).key, other.key);
  EXPECT_EQ(Dropped(std::vector{At(4)}, std::vector{other}).size(), 1u);
}

TEST(Session, GoingBack_KeepsTheNextCheckpointOnlyIfItCanBeTakenBack) {
  Checkpoint late = At(40, true);
  late.exact_from = 32;
  const std::vector<Checkpoint> all = {At(10), late};
  EXPECT_EQ(CutTo(all, 31).size(), 1u);
  const std::vector<Checkpoint> cut = CutTo(all, 32);
  ASSERT_EQ(cut.size(), 2u);
  EXPECT_EQ(cut[1].position, 32);
  EXPECT_EQ(cut[1].key_position, 40);
  EXPECT_FALSE(cut[1].has_logits);
  EXPECT_TRUE(CutTo(all, 0).empty());
}

}  // namespace
}  // namespace statehouse::testing
