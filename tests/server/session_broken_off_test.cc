// What becomes of a turn whose stream broke off: of a client that was lost, one that was stopped, one that hangs.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/session_input.h"
#include "tests/server/session_fixture.h"

namespace statehouse::testing {
namespace {

using SessionBrokenOff = SessionTurns;

TEST_F(SessionBrokenOff, ClientWithAKeyThatIsLost_GetsTheWholeAnswerWhenItComesBack) {
  const std::vector<int32_t> whole = IdsOf(Once(TurnOf("undisturbed", "one", 40)));
  SlowSteps(50);
  v1::GenerateRequest request = TurnOf("ada", "one", 40, "key");
  request.mutable_session()->set_on_failure(v1::ON_FAILURE_KEEP_DELIVERED);
  {
    grpc::ClientContext context;
    const auto reader = server_.generation().Generate(&context, request);
    v1::GenerateEvent event;
    for (int64_t seen = 0; seen < 5 && reader->Read(&event);) seen += event.delta().token_ids_size();
    context.TryCancel();  // what a broken connection does
    while (reader->Read(&event)) {
    }
    reader->Finish();
  }
  ASSERT_TRUE(Eventually([&] {
    const auto session = server_.store().Get("", "ada");
    return session.ok() && !session->busy;
  }));
  EXPECT_EQ(TokensOf("ada").size(), 0u) << "half an answer must not pass for the answer";
  SlowSteps(0);
  const v1::GenerateResponse again = Once(request);
  EXPECT_FALSE(again.session().repeated());
  EXPECT_EQ(IdsOf(again), whole);
  EXPECT_EQ(again.outputs(0).reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(SessionBrokenOff, TurnThatItsUserStops_KeepsWhatWasReadAlsoIfTheClientLeavesThen) {
  SlowSteps(5);
  v1::GenerateRequest request = TurnOf("ada", "one", 100000, "key");
  request.mutable_session()->set_on_failure(v1::ON_FAILURE_KEEP_DELIVERED);
  int64_t seen = 0;
  {
    grpc::ClientContext context;
    context.AddMetadata("x-request-id", "to-stop");
    const auto reader = server_.generation().Generate(&context, request);
    v1::GenerateEvent event;
    while (seen < 5 && reader->Read(&event)) seen += event.delta().token_ids_size();
    v1::CancelRequest cancel;
    cancel.set_request_id("to-stop");
    grpc::ClientContext cancel_context;
    v1::CancelResponse cancelled;
    ASSERT_TRUE(server_.generation().Cancel(&cancel_context, cancel, &cancelled).ok());
    context.TryCancel();
    while (reader->Read(&event)) {
    }
    reader->Finish();
  }
  ASSERT_TRUE(Eventually([&] { return !server_.store().Get("", "ada")->busy; }));
  EXPECT_GE(static_cast<int64_t>(TokensOf("ada").size()), 4 + seen);
  SlowSteps(0);
  const v1::GenerateResponse again = Once(request);
  EXPECT_TRUE(again.session().repeated());
  EXPECT_EQ(again.outputs(0).reason(), v1::FINISH_REASON_CANCELLED) << "who asks again is told";
}

TEST_F(SessionBrokenOff, SameKeyWhileTheFirstCallsReaderHangs_TakesOverSoon) {
  v1::GenerateRequest request = TurnOf("ada", "one", 200000, "key");
  grpc::ClientContext context;
  const auto hanging = server_.generation().Generate(&context, request);
  v1::GenerateEvent event;
  ASSERT_TRUE(hanging->Read(&event));
  // Nobody reads on, until a write is stuck and the sequence pauses.
  ASSERT_TRUE(Eventually([&] { return server_.engine().stats().slow_reader_pauses > 0; }));
  grpc::ClientContext second;
  const auto reader = server_.generation().Generate(&second, request);
  ASSERT_TRUE(reader->Read(&event)) << reader->Finish().error_message();
  EXPECT_TRUE(event.has_started());
  second.TryCancel();
  while (reader->Read(&event)) {
  }
  reader->Finish();
  while (hanging->Read(&event)) {
  }
  EXPECT_FALSE(hanging->Finish().ok());
}

TEST_F(SessionBrokenOff, FirstOutcomeThatCannotBeRead_IsDataLoss) {
  const v1::GenerateRequest request = TurnOf("ada", "one", 4, "key");
  {
    const std::vector<int32_t> input = {FakeTokenizer::kBos, 'o', 'n', 'e'};
    TurnRequest turn_request;
    turn_request.ref = "ada";
    turn_request.input = input;
    turn_request.idempotency_key = "key";
    turn_request.digest = RequestDigest(request);
    turn_request.create_if_missing = true;
    auto turn = server_.store().BeginTurn(turn_request);
    ASSERT_TRUE(turn.ok()) << turn.status();
    TurnOutcome outcome;
    outcome.tokens = {1, 2};
    outcome.detail = "\xFF\xFF no message";
    ASSERT_TRUE((*turn)->Commit(outcome, {}).ok());
  }
  EXPECT_EQ(StatusOf(request).error_code(), grpc::StatusCode::DATA_LOSS);
}

}  // namespace
}  // namespace statehouse::testing
