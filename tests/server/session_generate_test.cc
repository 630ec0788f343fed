// Generate with a session: only what is new is sent, a key makes a retry harmless, and a turn that broke off leaves
// what the caller chose.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/server/session_fixture.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

class SessionGenerate : public SessionTurns {
 protected:
  // What the same prompt gives where nothing was ever saved.
  std::vector<int32_t> Undisturbed(const std::vector<int32_t>& prompt, int max_tokens) {
    v1::GenerateRequest request;
    request.mutable_token_ids()->mutable_ids()->Add(prompt.begin(), prompt.end());
    request.mutable_sampling()->set_seed(7);
    request.mutable_stop()->set_max_tokens(max_tokens);
    request.mutable_stop()->set_ignore_eos(true);
    return IdsOf(Once(request));
  }
};

// The outcome that a failed call tells in its trailing metadata.
v1::SessionOutcome OutcomeOf(const grpc::ClientContext& context) {
  v1::SessionOutcome outcome;
  const auto found = context.GetServerTrailingMetadata().find("statehouse-session-outcome-bin");
  if (found != context.GetServerTrailingMetadata().end()) {
    outcome.ParseFromString(std::string(found->second.data(), found->second.size()));
  }
  return outcome;
}

TEST_F(SessionGenerate, RefusedFirstTurn_LeavesNoSessionBehind) {
  v1::GenerateRequest unknown_token = TurnOf("new", "");
  unknown_token.mutable_token_ids()->add_ids(99999);
  v1::GenerateRequest no_input = TurnOf("new", "");
  no_input.clear_text();
  v1::GenerateRequest bad_sampling = TurnOf("new", "one");
  bad_sampling.mutable_sampling()->set_top_p(7);
  for (v1::GenerateRequest request : {unknown_token, no_input, bad_sampling}) {
    for (const char* key : {"", "a key"}) {
      request.mutable_session()->set_idempotency_key(key);
      EXPECT_EQ(StatusOf(request).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
      EXPECT_EQ(server_.store().Get("", "new").status().code(), absl::StatusCode::kNotFound) << key;
    }
  }
  Once(TurnOf("new", "one"));
  unknown_token.mutable_session()->set_idempotency_key("another");
  EXPECT_FALSE(StatusOf(unknown_token).ok());
  EXPECT_EQ(TokensOf("new").size(), 16u) << "one that was there stays";
}

TEST_F(SessionGenerate, SecondTurn_SendsOnlyWhatIsNewAndGivesWhatTheWholePromptDoes) {
  const v1::GenerateResponse first = Once(TurnOf("ada", "one"));
  EXPECT_EQ(first.session().position_before(), 0);
  EXPECT_EQ(first.session().position(), 4 + 12) << "BOS, three bytes, twelve tokens";
  EXPECT_TRUE(first.session().committed());
  const std::vector<int32_t> held = TokensOf("ada");
  const v1::GenerateResponse second = Once(TurnOf("ada", " two"));
  EXPECT_EQ(second.session().position_before(), 16);
  EXPECT_EQ(second.session().session_id(), first.session().session_id());
  EXPECT_EQ(second.session().replayed_tokens(), 1) << "the last token generated has had no row";
  EXPECT_EQ(second.session().exactness(), v1::EXACTNESS_EXACT);
  EXPECT_EQ(second.usage().cached_tokens(), 15);
  EXPECT_EQ(second.cache().tier(), v1::CACHE_TIER_HOST);
  EXPECT_EQ(second.prompt_token_ids_size(), 4) << "no BOS in the middle";
  std::vector<int32_t> prompt = held;
  prompt.insert(prompt.end(), {' ', 't', 'w', 'o'});
  EXPECT_EQ(IdsOf(second), Undisturbed(prompt, 12));
  EXPECT_EQ(server_.model().violation(), "");
}

TEST_F(SessionGenerate, Started_SaysWhereTheInputBegins) {
  Once(TurnOf("ada", "one"));
  grpc::ClientContext context;
  const auto reader = server_.generation().Generate(&context, TurnOf("ada", "two"));
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.started().session_position(), 16);
  EXPECT_EQ(event.started().prompt_tokens(), 3);
  EXPECT_THAT(event.started().cache().explanation(), HasSubstr("restored 15 of the session's 16 tokens from host"));
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(event.done().session().position(), 16 + 3 + 12);
}

TEST_F(SessionGenerate, NoInput_GoesOnWithTheLastAnswer) {
  const std::vector<int32_t> first = IdsOf(Once(TurnOf("ada", "one", 6)));
  v1::GenerateRequest more = TurnOf("ada", "", 6);
  more.clear_input();
  const std::vector<int32_t> second = IdsOf(Once(more));
  std::vector<int32_t> both = first;
  both.insert(both.end(), second.begin(), second.end());
  EXPECT_EQ(both, Undisturbed({FakeTokenizer::kBos, 'o', 'n', 'e'}, 12));
  more.mutable_session()->set_session("new");
  EXPECT_EQ(StatusOf(more).error_code(), grpc::StatusCode::INVALID_ARGUMENT) << "an empty session has nothing to go on";
}

TEST_F(SessionGenerate, Chat_IsRenderedAsAContinuation) {
  v1::GenerateRequest request = TurnOf("ada", "", 6);
  request.mutable_chat()->add_messages()->set_role("user");
  request.mutable_chat()->mutable_messages(0)->set_content("hi");
  const v1::GenerateResponse first = Once(request);
  EXPECT_EQ(first.prompt_token_ids(0), FakeTokenizer::kImStart);
  const v1::GenerateResponse second = Once(request);
  EXPECT_EQ(second.prompt_token_ids(0), FakeTokenizer::kImEnd) << "the first answer was cut off: it is closed";
  EXPECT_EQ(second.prompt_token_ids(1), '\n');
  EXPECT_EQ(second.prompt_token_ids(2), FakeTokenizer::kImStart);
}

TEST_F(SessionGenerate, SameKey_ReturnsTheFirstOutcomeAndAppendsNothing) {
  for (const char* stop : {"", "e"}) {
    v1::GenerateRequest request = TurnOf(absl::StrCat("ada", stop), "one", 40, "key");
    if (*stop != '\0') request.mutable_stop()->add_strings(stop);
    request.mutable_sampling()->clear_seed();  // the server's choice is on record, too
    const v1::GenerateResponse first = Once(request);
    const v1::GenerateResponse again = Once(request);
    EXPECT_FALSE(first.session().repeated());
    EXPECT_TRUE(again.session().repeated());
    EXPECT_EQ(again.session().position(), first.session().position());
    EXPECT_EQ(again.session().position_before(), 0);
    EXPECT_EQ(again.seed(), first.seed());
    EXPECT_EQ(IdsOf(again), IdsOf(first));
    EXPECT_EQ(again.outputs(0).text(), first.outputs(0).text());
    EXPECT_EQ(again.outputs(0).reason(), first.outputs(0).reason());
    EXPECT_EQ(again.outputs(0).stop_string(), first.outputs(0).stop_string());
    EXPECT_EQ(static_cast<int64_t>(TokensOf(request.session().session()).size()), first.session().position());
  }
}

TEST_F(SessionGenerate, SameKeyWithOtherInput_NamesTheField) {
  Once(TurnOf("ada", "one", 6, "key"));
  for (const v1::GenerateRequest& other : {TurnOf("ada", "two", 6, "key"), TurnOf("ada", "one", 7, "key")}) {
    const grpc::Status status = StatusOf(other);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("session.idempotency_key"));
  }
}

TEST_F(SessionGenerate, ResumeFrom_SendsTheRestWithTheTextThatBelongsToIt) {
  v1::GenerateRequest request = TurnOf("ada", "one", 30, "key");
  request.mutable_stop()->add_strings("no such text \xC3\xA9");  // holds text back
  const v1::GenerateResponse whole = Once(request);
  for (const int64_t skip : {0, 1, 7, 29, 30}) {
    // What a reader had of the text when `skip` tokens had come, and what the rest brings.
    std::string before;
    int64_t seen = 0;
    {
      v1::GenerateRequest cut = request;
      cut.mutable_session()->clear_idempotency_key();
      cut.mutable_session()->set_session(absl::StrCat("cut", skip));
      grpc::ClientContext context;
      const auto reader = server_.generation().Generate(&context, cut);
      v1::GenerateEvent event;
      while (reader->Read(&event)) {
        if (seen + event.delta().token_ids_size() > skip) break;
        seen += event.delta().token_ids_size();
        before += event.delta().text();
      }
      context.TryCancel();
      while (reader->Read(&event)) {
      }
      reader->Finish();
    }
    request.mutable_session()->set_resume_from(whole.session().position_before() + 4 + seen);
    const v1::GenerateResponse rest = Once(request);
    std::vector<int32_t> ids = IdsOf(whole);
    EXPECT_EQ(IdsOf(rest), std::vector<int32_t>(ids.begin() + seen, ids.end())) << skip;
    EXPECT_EQ(before + rest.outputs(0).text(), whole.outputs(0).text()) << skip;
  }
}

TEST_F(SessionGenerate, SameKeyWhileTheFirstRuns_TakesOverWithTheSameTokens) {
  SlowSteps(5);
  v1::GenerateRequest request = TurnOf("ada", "one", 60, "key");
  request.mutable_sampling()->clear_seed();
  grpc::ClientContext context;
  const auto reader = server_.generation().Generate(&context, request);
  v1::GenerateEvent event;
  std::vector<int32_t> seen;
  while (seen.size() < 10 && reader->Read(&event)) {
    seen.insert(seen.end(), event.delta().token_ids().begin(), event.delta().token_ids().end());
  }
  request.mutable_session()->set_resume_from(4 + static_cast<int64_t>(seen.size()));
  const std::vector<int32_t> rest = IdsOf(Once(request));
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::ABORTED) << "the first call is told";
  seen.insert(seen.end(), rest.begin(), rest.end());
  EXPECT_EQ(seen.size(), 60u);
  const std::vector<int32_t> held = TokensOf("ada");
  EXPECT_EQ(std::vector<int32_t>(held.begin() + 4, held.end()), seen) << "appended once, and as it was read";
}

TEST_F(SessionGenerate, SecondWriter_IsAbortedWithARetryHint) {
  SlowSteps(5);
  grpc::ClientContext context;
  const auto reader = server_.generation().Generate(&context, TurnOf("ada", "one", 100000));
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  const grpc::Status status = StatusOf(TurnOf("ada", "two"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  google::rpc::Status rich;
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(rich.ParseFromString(status.error_details()));
  ASSERT_EQ(rich.details_size(), 1);
  EXPECT_TRUE(rich.details(0).UnpackTo(&retry));
  context.TryCancel();
}

TEST_F(SessionGenerate, CancelledTurn_LeavesWhatTheCallerChose) {
  Once(TurnOf("ada", "one"));
  const std::vector<int32_t> before = TokensOf("ada");
  SlowSteps(5);
  for (const v1::OnFailure choice : {v1::ON_FAILURE_DISCARD, v1::ON_FAILURE_KEEP_DELIVERED}) {
    v1::GenerateRequest request = TurnOf("ada", "two", 100000);
    request.mutable_session()->set_on_failure(choice);
    grpc::ClientContext context;
    context.AddMetadata("x-request-id", "to-cancel");
    const auto reader = server_.generation().Generate(&context, request);
    v1::GenerateEvent event;
    std::vector<int32_t> seen;
    while (seen.size() < 5 && reader->Read(&event)) {
      seen.insert(seen.end(), event.delta().token_ids().begin(), event.delta().token_ids().end());
    }
    v1::CancelRequest cancel;
    cancel.set_request_id("to-cancel");
    grpc::ClientContext cancel_context;
    v1::CancelResponse cancelled;
    ASSERT_TRUE(server_.generation().Cancel(&cancel_context, cancel, &cancelled).ok());
    while (reader->Read(&event)) {
      seen.insert(seen.end(), event.delta().token_ids().begin(), event.delta().token_ids().end());
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
    const v1::SessionOutcome outcome = OutcomeOf(context);
    std::vector<int32_t> expected = before;
    if (choice == v1::ON_FAILURE_KEEP_DELIVERED) {
      expected.insert(expected.end(), {'t', 'w', 'o'});
      expected.insert(expected.end(), seen.begin(), seen.end());
    }
    EXPECT_EQ(TokensOf("ada"), expected) << choice;
    EXPECT_EQ(outcome.position(), static_cast<int64_t>(expected.size()));
    EXPECT_EQ(outcome.committed(), choice == v1::ON_FAILURE_KEEP_DELIVERED);
  }
  SlowSteps(0);
  const std::vector<int32_t> held = TokensOf("ada");
  std::vector<int32_t> prompt = held;
  prompt.push_back('!');
  EXPECT_EQ(IdsOf(Once(TurnOf("ada", "!"))), Undisturbed(prompt, 12)) << "what was cut off goes on exactly";
}

TEST_F(SessionGenerate, FieldsThatDoNotGoWithASession_AreNamed) {
  const auto named = [&](const auto& change) {
    v1::GenerateRequest request = TurnOf("ada", "one");
    change(&request);
    const grpc::Status status = StatusOf(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return status.error_message();
  };
  EXPECT_THAT(named([](auto* r) { r->set_n(2); }), HasSubstr("n: 2"));
  EXPECT_THAT(named([](auto* r) { r->set_suffix("x"); }), HasSubstr("suffix"));
  EXPECT_THAT(named([](auto* r) { r->set_prompt_logprobs(0); }), HasSubstr("prompt_logprobs"));
  EXPECT_THAT(named([](auto* r) { r->mutable_session()->set_session(""); }), HasSubstr("session.session"));
  EXPECT_THAT(named([](auto* r) { r->mutable_session()->set_resume_from(3); }), HasSubstr("session.resume_from"));
  EXPECT_THAT(named([](auto* r) { r->mutable_session()->set_idempotency_key(std::string(129, 'k')); }),
              HasSubstr("session.idempotency_key"));
  EXPECT_TRUE(server_.store().List("", {}, "", 10)->sessions.empty()) << "none of them made the session";
}

TEST_F(SessionGenerate, MissingSession_IsNotFoundUnlessItMayBeMade) {
  v1::GenerateRequest request = TurnOf("ada", "one");
  request.mutable_session()->set_create_if_missing(false);
  EXPECT_EQ(StatusOf(request).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(SessionGenerate, FailedStep_LeavesTheSessionAsItWas) {
  Once(TurnOf("ada", "one"));
  const std::vector<int32_t> before = TokensOf("ada");
  server_.model().FailAfter(3);
  EXPECT_EQ(StatusOf(TurnOf("ada", "two")).error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(TokensOf("ada"), before);
  EXPECT_FALSE(server_.store().Get("", "ada")->busy);
}

TEST_F(SessionGenerate, AfterATurn_NoSlotIsHeld) {
  Once(TurnOf("ada", "one"));
  EXPECT_TRUE(Eventually([&] { return server_.engine().GetStatus().slots_used == 0; }));
}

}  // namespace
}  // namespace statehouse::testing
