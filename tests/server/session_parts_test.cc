// The small parts behind sessions on the wire: who takes over from whom, transfers that may go on, digests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>
#include <span>
#include <string>
#include <thread>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/import_table.h"
#include "server/session_file.h"
#include "server/session_input.h"
#include "server/turn_table.h"
#include "tests/support/server_fixture.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

absl::Time Soon() { return absl::Now() + absl::Seconds(10); }

TEST(TurnTable, Supersede_CancelsTheStreamAndWaitsForItsEnd) {
  TurnTable table;
  auto ticket = table.Enter("id", "key");
  const auto stream = std::make_shared<EventStream>("r", 1, 4);
  ticket->SetStream(stream);
  EXPECT_FALSE(table.Supersede("id", "other key", Soon())) << "there is none of that key";
  EXPECT_FALSE(table.Supersede("id", "key", absl::Now() + absl::Milliseconds(20))) << "it has not ended in time";
  EXPECT_TRUE(stream->cancelled());
  EXPECT_TRUE(ticket->superseded());
  std::thread ends([&] {
    absl::SleepFor(absl::Milliseconds(20));
    ticket.reset();
  });
  EXPECT_TRUE(table.Supersede("id", "key", Soon()));
  ends.join();
  EXPECT_FALSE(table.Supersede("id", "key", Soon()));
}

TEST(TurnTable, StreamThatComesAfterItWasSuperseded_IsCancelledAtOnce) {
  TurnTable table;
  const auto ticket = table.Enter("id", "key");
  EXPECT_FALSE(table.Supersede("id", "key", absl::Now()));
  const auto stream = std::make_shared<EventStream>("r", 1, 4);
  ticket->SetStream(stream);
  EXPECT_TRUE(stream->cancelled());
}

TEST(TurnTable, TicketThatOutlivesItsTurn_LeavesTheNextOneItsPlace) {
  TurnTable table;
  auto old = table.Enter("id", "key");
  const auto ticket = table.Enter("id", "key");
  const auto stream = std::make_shared<EventStream>("r", 1, 4);
  ticket->SetStream(stream);
  old.reset();
  EXPECT_FALSE(table.Supersede("id", "key", absl::Now())) << "it has not ended";
  EXPECT_TRUE(stream->cancelled());
}

TEST(ImportTable, TransferGoesOnWhereItEnded) {
  ImportTable table;
  EXPECT_EQ(table.Offset("ann", "t"), 0);
  auto first = table.Open("ann", "t");
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(absl::IsAborted(table.Open("ann", "t").status())) << "another call is at it";
  ASSERT_TRUE((*first)->Append(0, "abc").ok());
  EXPECT_TRUE(absl::IsInvalidArgument((*first)->Append(2, "x")));
  first->reset();
  EXPECT_EQ(table.Offset("ann", "t"), 3);
  EXPECT_EQ(table.Offset("bob", "t"), 0) << "somebody else's";
  auto second = table.Open("ann", "t");
  ASSERT_TRUE(second.ok());
  ASSERT_TRUE((*second)->Append(3, "de").ok());
  EXPECT_EQ((*second)->Take(), "abcde");
  EXPECT_EQ(table.Offset("ann", "t"), 0);
}

TEST(ImportTable, CallThatOutlivesWhatItTook_LeavesTheNextOneItsPlace) {
  ImportTable table;
  auto first = *table.Open("ann", "t");
  ASSERT_TRUE(first->Append(0, "abc").ok());
  EXPECT_EQ(first->Take(), "abc");
  const auto second = *table.Open("ann", "t");
  first.reset();
  EXPECT_TRUE(absl::IsAborted(table.Open("ann", "t").status()));
}

TEST(ImportTable, CallThatEndsInAnException_LeavesTheTransferToTheNext) {
  ImportTable table;
  try {
    auto opened = table.Open("ann", "t");
    ASSERT_TRUE((*opened)->Append(0, "abc").ok());
    throw std::bad_alloc();
  } catch (const std::bad_alloc&) {
  }
  EXPECT_TRUE(table.Open("ann", "t").ok());
  EXPECT_EQ(table.Offset("ann", "t"), 3);
}

TEST(ImportTable, NumberAndBytesOfAllAndOfEach_AreBounded) {
  ImportTable table({.max_transfers_per_principal = 2, .max_bytes = 10, .max_bytes_per_principal = 8});
  const auto a = *table.Open("ann", "a"), b = *table.Open("ann", "b");
  EXPECT_TRUE(absl::IsResourceExhausted(table.Open("ann", "c").status()));
  const auto c = *table.Open("bob", "c");
  ASSERT_TRUE(a->Append(0, "12345").ok());
  const absl::Status own = b->Append(0, "6789");
  EXPECT_TRUE(absl::IsResourceExhausted(own));
  EXPECT_THAT(std::string(own.message()), HasSubstr("of yours"));
  EXPECT_TRUE(absl::IsResourceExhausted(c->Append(0, "123456")));
  EXPECT_TRUE(c->Append(0, "12345").ok()) << "ann leaves room to bob";
  EXPECT_EQ(a->Take(), "12345");
  EXPECT_TRUE(b->Append(0, "6789").ok());
}

TEST(ImportTable, TransferThatNobodyGoesOnWith_IsForgotten) {
  for (const bool asks : {true, false}) {
    ImportTable table({.max_bytes = 10, .keep = absl::ZeroDuration()});
    const auto under_way = *table.Open("bob", "c");
    ASSERT_TRUE(under_way->Append(0, "1").ok());
    auto broken_off = table.Open("ann", "a");
    ASSERT_TRUE((*broken_off)->Append(0, "12345678").ok());
    EXPECT_FALSE(under_way->Append(1, "23456789").ok());
    broken_off->reset();
    absl::SleepFor(absl::Milliseconds(2));
    if (asks) {
      EXPECT_EQ(table.Offset("ann", "a"), 0);
    } else {
      table.ForgetOld();
    }
    EXPECT_TRUE(under_way->Append(1, "23456789").ok()) << "its bytes are there for others";
    EXPECT_EQ(under_way->Take(), "123456789");
  }
}

// A session file of three tokens that says of itself what it likes.
std::string FileOf(const std::string& description) {
  std::string file = "SHSESS01";
  const int32_t tokens[3] = {1, 2, 3};
  for (const std::string& section :
       {description, std::string(reinterpret_cast<const char*>(tokens), sizeof(tokens)), std::string()}) {
    const uint64_t head[2] = {section.size(), XXH3_64bits(section.data(), section.size())};
    file.append(reinterpret_cast<const char*>(head), sizeof(head));
    file += section;
  }
  return file;
}

std::string Description(const std::string& num_tokens, const std::string& turns) {
  return absl::StrCat(R"({"format":1,"name":"","labels":{},"has_snapshot":false,"num_tokens":)", num_tokens,
                      R"(,"turns":)", turns, "}");
}

absl::StatusOr<SessionImage> ReadFile(const std::string& file) {
  return ReadSessionFile(std::as_bytes(std::span(file)), Fingerprint(), SlotShape(), /*vocab_size=*/10, false);
}

TEST(SessionFile, ClaimsThatDoNotFit_AreDamage) {
  ASSERT_TRUE(ReadFile(FileOf(Description("3", "[[0,2,3,7]]"))).ok());
  const std::string padding(size_t{16} << 20, ' ');
  for (const std::string& description :
       {Description("4611686018427387907", "[]"),  // 2^62 + 3: as many bytes as 3, but for those that overflow
        Description("2", "[]"), Description("3", "[[0,0,0,7]]"), Description("3", "[[0,2,4,7]]"),
        Description("3", "[]") + padding}) {
    EXPECT_TRUE(absl::IsDataLoss(ReadFile(FileOf(description)).status())) << description.substr(0, 100);
  }
}

TEST(SessionFile, TurnWithoutTokens_IsNotWritten) {
  SessionImage image;
  image.tokens = {1, 2, 3};
  image.turns = {{.input_begin = 0, .answer_begin = 2, .end = 3, .seed = 7},
                 {.input_begin = 3, .answer_begin = 3, .end = 3, .seed = 8}};
  const auto file = WriteSessionFile(image, Fingerprint(), {});
  ASSERT_TRUE(file.ok()) << file.status();
  const auto read = ReadSessionFile(file->bytes.bytes(), Fingerprint(), SlotShape(), /*vocab_size=*/10, false);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->turns.size(), 1u);
}

v1::GenerateRequest Asked() {
  v1::GenerateRequest request;
  request.set_text("hello");
  for (int id = 0; id < 20; ++id) (*request.mutable_sampling()->mutable_logit_bias())[id] = 1;
  request.mutable_session()->set_session("ada");
  return request;
}

TEST(RequestDigest, CoversWhatDecidesTheAnswerAndNothingElse) {
  const std::string digest = RequestDigest(Asked());
  EXPECT_EQ(digest.size(), 32u);
  const auto changed = [&](const auto& change) {
    v1::GenerateRequest request = Asked();
    change(&request);
    return RequestDigest(request) != digest;
  };
  EXPECT_TRUE(changed([](auto* r) { r->set_text("hell"); }));
  EXPECT_TRUE(changed([](auto* r) { r->mutable_chat()->add_messages()->set_content("hello"); }));
  EXPECT_TRUE(changed([](auto* r) { r->mutable_sampling()->set_temperature(0); })) << "0 is not absent";
  EXPECT_TRUE(changed([](auto* r) { r->mutable_stop()->add_strings("x"); }));
  EXPECT_TRUE(changed([](auto* r) { r->set_add_special_tokens(true); }));
  EXPECT_FALSE(changed([](auto* r) { r->mutable_session()->set_resume_from(7); }));
  EXPECT_FALSE(changed([](auto* r) { r->set_return_token_ids(false); }));
  EXPECT_FALSE(changed([](auto* r) { r->set_priority(3); }));
}

TEST(SessionInput, TextGetsItsStartTokensOnlyWhereTheSessionBegins) {
  testing::FakeTokenizer tokenizer;
  const ServedModel model = testing::FakeServedModel(nullptr, &tokenizer);
  v1::GenerateRequest request;
  request.set_text("a");
  const std::vector<int32_t> held = {1, 2};
  EXPECT_THAT(*SessionInput(request, model, {}), ::testing::ElementsAre(testing::FakeTokenizer::kBos, 'a'));
  EXPECT_THAT(*SessionInput(request, model, held), ::testing::ElementsAre('a'));
  request.set_add_special_tokens(true);
  EXPECT_THAT(*SessionInput(request, model, held), ::testing::ElementsAre(testing::FakeTokenizer::kBos, 'a'));
  request.clear_input();
  EXPECT_THAT(*SessionInput(request, model, held), ::testing::IsEmpty());
  EXPECT_THAT(SessionInput(request, model, {}).status().message(), HasSubstr("input"));
}

}  // namespace
}  // namespace statehouse
