// Answers of sessions that go on after a lost server.
#include "clients/cli/resuming_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <thread>
#include <vector>

namespace statehouse::cli {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// An answer of ten tokens at positions 104 … 113, of which each attempt brings what the test says before it fails.
class LossyBackend : public GenerateBackend {
 public:
  struct Attempt {
    int tokens = 10;  // in this attempt
    absl::Status status = absl::OkStatus();
    // What is left of a turn that was cut off for good: Done says that it was repeated.
    v1::FinishReason reason = v1::FINISH_REASON_STOP;
    bool repeated = false;
  };
  explicit LossyBackend(std::deque<Attempt> attempts) : attempts_(std::move(attempts)) {}

  absl::Status Generate(const v1::GenerateRequest& request, const OnEvent& on_event) override {
    requests.push_back(request);
    if (attempts_.empty()) return absl::InternalError("asked more often than expected");
    const Attempt attempt = attempts_.front();
    attempts_.pop_front();
    if (attempt.tokens < 0) return attempt.status;  // nobody answered
    v1::GenerateEvent event;
    event.mutable_started()->set_session_position(100);
    event.mutable_started()->set_prompt_tokens(4);
    on_event(event);
    const int64_t from = std::max<int64_t>(request.session().resume_from(), 104);
    for (int64_t position = from; position < std::min<int64_t>(from + attempt.tokens, 114); ++position) {
      event.Clear();
      event.mutable_delta()->add_token_ids(static_cast<int32_t>(position));
      event.mutable_delta()->set_text(std::to_string(position) + " ");
      on_event(event);
    }
    if (from + attempt.tokens < 114 && !attempt.repeated) return attempt.status;
    event.Clear();
    event.mutable_finished()->set_reason(attempt.reason);
    on_event(event);
    if (!attempt.status.ok()) return attempt.status;
    event.Clear();
    event.mutable_done()->mutable_session()->set_repeated(attempt.repeated);
    event.mutable_done()->mutable_session()->set_position(106);
    on_event(event);
    return absl::OkStatus();
  }
  void Cancel() override {}
  void ForgetCancel() override {}

  std::vector<v1::GenerateRequest> requests;

 private:
  std::deque<Attempt> attempts_;
};

struct Seen {
  absl::Status status;
  std::vector<std::string> kinds;  // without repetitions
  std::string text;
  int losses = 0;
};

ResumingBackend::Options Quick(Seen* seen) {
  ResumingBackend::Options options;
  options.first_pause = std::chrono::milliseconds(1);
  options.on_loss = [seen](const absl::Status&) { ++seen->losses; };
  return options;
}

Seen Read(LossyBackend* inner, bool return_ids = false) {
  Seen seen;
  ResumingBackend backend(inner, Quick(&seen));
  v1::GenerateRequest request;
  request.mutable_session()->set_session("ada");
  request.set_return_token_ids(return_ids);
  seen.status = backend.Generate(request, [&](const v1::GenerateEvent& event) {
    const std::string kind = event.has_started()    ? "started"
                             : event.has_delta()    ? "delta"
                             : event.has_finished() ? "finished"
                                                    : "done";
    if (seen.kinds.empty() || seen.kinds.back() != kind) seen.kinds.push_back(kind);
    seen.text += event.delta().text();
    EXPECT_EQ(event.delta().token_ids_size() > 0, return_ids && event.has_delta());
  });
  return seen;
}

constexpr char kWhole[] = "104 105 106 107 108 109 110 111 112 113 ";

TEST(ResumingBackend, LostServer_IsAskedAgainFromWhereItWas) {
  for (const bool return_ids : {false, true}) {
    LossyBackend inner({{3, absl::UnavailableError("gone")},
                        {-1, absl::UnavailableError("no server answers")},
                        {0, absl::AbortedError("still held")},
                        {2, absl::InternalError("Received RST_STREAM with error code 2")},
                        {10, absl::OkStatus()}});
    const Seen seen = Read(&inner, return_ids);
    EXPECT_TRUE(seen.status.ok()) << seen.status;
    EXPECT_EQ(seen.text, kWhole);
    EXPECT_EQ(seen.losses, 3) << "that nobody answered yet is no new loss";
    EXPECT_THAT(seen.kinds, ElementsAre("started", "delta", "finished", "done"));
    std::vector<int64_t> from;
    for (const auto& request : inner.requests) {
      from.push_back(request.session().resume_from());
      EXPECT_EQ(request.session().idempotency_key(), inner.requests[0].session().idempotency_key());
    }
    EXPECT_THAT(from, ElementsAre(0, 107, 107, 107, 109));
    EXPECT_EQ(inner.requests[0].session().idempotency_key().size(), 32u);
  }
}

TEST(ResumingBackend, LostBetweenFinishedAndDone_SaysFinishedOnce) {
  LossyBackend inner({{10, absl::UnavailableError("gone")}, {10, absl::OkStatus()}});
  const Seen seen = Read(&inner);
  EXPECT_TRUE(seen.status.ok());
  EXPECT_EQ(seen.text, kWhole);
  EXPECT_THAT(seen.kinds, ElementsAre("started", "delta", "finished", "done"));
}

TEST(ResumingBackend, AnswerThatWasCutOffForGood_IsNotToldAsAWholeOne) {
  for (const v1::FinishReason reason :
       {v1::FINISH_REASON_CANCELLED, v1::FINISH_REASON_DEADLINE, v1::FINISH_REASON_ERROR}) {
    LossyBackend inner({{2, absl::UnavailableError("gone")}, {0, absl::OkStatus(), reason, /*repeated=*/true}});
    const Seen seen = Read(&inner);
    EXPECT_TRUE(absl::IsAborted(seen.status)) << seen.status;
    EXPECT_THAT(std::string(seen.status.message()), testing::HasSubstr("holds 106 tokens"));
    EXPECT_EQ(seen.text, "104 105 ");
  }
  LossyBackend whole({{2, absl::UnavailableError("gone")}, {8, absl::OkStatus(), v1::FINISH_REASON_LENGTH, true}});
  EXPECT_TRUE(Read(&whole).status.ok());
}

TEST(ResumingBackend, CallerThatResumesItself_IsNotSentWhatItHas) {
  LossyBackend inner(
      {{0, absl::UnavailableError("gone")}, {2, absl::UnavailableError("gone")}, {10, absl::OkStatus()}});
  Seen seen;
  ResumingBackend backend(&inner, Quick(&seen));
  v1::GenerateRequest request;
  request.mutable_session()->set_session("ada");
  request.mutable_session()->set_idempotency_key("key");
  request.mutable_session()->set_resume_from(109);
  ASSERT_TRUE(
      backend.Generate(request, [&](const v1::GenerateEvent& event) { seen.text += event.delta().text(); }).ok());
  EXPECT_EQ(seen.text, "109 110 111 112 113 ");
  std::vector<int64_t> from;
  for (const auto& asked : inner.requests) from.push_back(asked.session().resume_from());
  EXPECT_THAT(from, ElementsAre(109, 109, 111));
}

TEST(ResumingBackend, RefusedRequest_IsNotAskedAgain) {
  for (const absl::Status& refusal : {absl::AbortedError("busy"), absl::InvalidArgumentError("no"),
                                      absl::ResourceExhaustedError("full"), absl::InternalError("a step failed")}) {
    LossyBackend inner({{-1, refusal}});
    const Seen seen = Read(&inner);
    EXPECT_EQ(seen.status, refusal);
    EXPECT_EQ(seen.losses, 0);
    EXPECT_THAT(seen.kinds, IsEmpty());
  }
}

TEST(ResumingBackend, NoServerAtAll_IsSaidAtOnceWhereThatWasAskedFor) {
  LossyBackend inner({{-1, absl::UnavailableError("no server answers")}});
  Seen seen;
  ResumingBackend::Options options = Quick(&seen);
  options.waits_for_first = false;
  ResumingBackend backend(&inner, options);
  v1::GenerateRequest request;
  request.mutable_session()->set_session("ada");
  EXPECT_TRUE(absl::IsUnavailable(backend.Generate(request, [](const v1::GenerateEvent&) {})));
}

TEST(ResumingBackend, Cancel_EndsTheWaitForAServer) {
  LossyBackend inner({{-1, absl::UnavailableError("gone")}});
  Seen seen;
  ResumingBackend::Options options = Quick(&seen);
  options.first_pause = std::chrono::minutes(1);
  ResumingBackend backend(&inner, options);
  v1::GenerateRequest request;
  request.mutable_session()->set_session("ada");
  std::thread canceller([&] { backend.Cancel(); });
  EXPECT_TRUE(absl::IsCancelled(backend.Generate(request, [](const v1::GenerateEvent&) {})));
  canceller.join();
}

TEST(ResumingBackend, RequestWithoutASession_PassesThrough) {
  LossyBackend inner({{-1, absl::UnavailableError("gone")}});
  Seen seen;
  ResumingBackend backend(&inner, Quick(&seen));
  EXPECT_TRUE(absl::IsUnavailable(backend.Generate({}, [](const v1::GenerateEvent&) {})));
  EXPECT_FALSE(inner.requests[0].has_session());
}

}  // namespace
}  // namespace statehouse::cli
