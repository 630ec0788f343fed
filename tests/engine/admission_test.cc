// What a request is told before it waits: the operator's bounds, and what could never end well.
#include "engine/admission.h"

#include <gmock/gmock.h>

#include "engine/errors.h"
#include "tests/engine/engine_fixture.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kVocab = 8;

Request WithMinTokens(std::vector<int32_t> allowed, std::vector<int32_t> banned, std::vector<int32_t> stop) {
  Request request;
  request.stop.min_tokens = 3;
  request.sampling.allowed_token_ids = std::move(allowed);
  request.sampling.banned_token_ids = std::move(banned);
  request.stop.stop_token_ids = std::move(stop);
  return request;
}

TEST(Admission, MinTokensWithOnlyEndTokensAllowed_IsRefusedAndNamesTheFields) {
  const absl::Status status = CheckMinTokens(WithMinTokens({5, 6}, {}, {6}), /*eos_ids=*/{5}, kVocab);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(status), "stop.min_tokens");
  EXPECT_THAT(std::string(status.message()), HasSubstr("sampling.allowed_token_ids"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("stop.token_ids"));
}

TEST(Admission, MinTokensWithEverythingElseBanned_IsRefused) {
  EXPECT_FALSE(CheckMinTokens(WithMinTokens({}, {0, 1, 2, 3, 4}, {6, 7}), {5}, kVocab).ok());
  EXPECT_FALSE(CheckMinTokens(WithMinTokens({1, 5}, {1}, {}), {5}, kVocab).ok());
}

TEST(Admission, MinTokensWithATokenLeft_IsTaken) {
  EXPECT_TRUE(CheckMinTokens(WithMinTokens({}, {}, {}), {5}, kVocab).ok());
  EXPECT_TRUE(CheckMinTokens(WithMinTokens({4, 5}, {}, {}), {5}, kVocab).ok());
  EXPECT_TRUE(CheckMinTokens(WithMinTokens({}, {0, 1, 2, 3}, {6, 7}), {5}, kVocab).ok());
  Request request = WithMinTokens({5}, {}, {});
  request.stop.ignore_eos = true;
  EXPECT_TRUE(CheckMinTokens(request, {5}, kVocab).ok());
  request = WithMinTokens({5}, {}, {});
  request.stop.min_tokens = 0;
  EXPECT_TRUE(CheckMinTokens(request, {5}, kVocab).ok());
}

TEST(Admission, MinPriorityOutOfRange_IsRefusedByItsFlag) {
  EXPECT_EQ(FieldOf(CheckOptions({.min_priority = -1001})), "--min-priority");
  EXPECT_EQ(FieldOf(CheckOptions({.min_priority = 1001})), "--min-priority");
  EXPECT_TRUE(CheckOptions({}).ok());
}

TEST_F(EngineTest, MoreUrgentThanTheOperatorAllows_IsRefusedByField) {
  EngineOptions options{.max_num_seqs = 1, .max_num_batched_tokens = 8};
  options.min_priority = 0;
  MakeEngine(FakeModelOptions{}, options);
  std::unique_ptr<Request> request = MakeRequest(MakePrompt(3), 2);
  request->priority = -1;
  const absl::Status status = engine_->Submit(std::move(request)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(status), "priority");
  EXPECT_THAT(std::string(status.message()), HasSubstr("[0, 1000]"));
  request = MakeRequest(MakePrompt(3), 2);
  request->priority = 0;
  EXPECT_TRUE(RunAndRead(Submit(std::move(request))).done);
}

TEST_F(EngineTest, MinTokensWithOnlyEndTokensAllowed_IsRefusedAtSubmit) {
  FakeModelOptions model;
  model.eos_ids = {7};
  MakeEngine(model, {.max_num_seqs = 1, .max_num_batched_tokens = 8});
  std::unique_ptr<Request> request = MakeRequest(MakePrompt(3), 4);
  request->stop.min_tokens = 1;
  request->sampling.allowed_token_ids = {7};
  EXPECT_EQ(FieldOf(engine_->Submit(std::move(request)).status()), "stop.min_tokens");
}

}  // namespace
}  // namespace statehouse::testing
