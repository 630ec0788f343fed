// Every field of a request out of its range is refused by name.
#include "engine/request.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "engine/errors.h"

namespace statehouse {
namespace {

constexpr int64_t kVocab = 100;

Request Good() {
  Request request;
  request.prompt = {1, 2, 3};
  request.stop.max_tokens = 10;
  return request;
}

struct BadField {
  const char* field;
  std::function<void(Request*)> spoil;
};

TEST(ValidateRequest, GoodRequest_Passes) {
  Request request = Good();
  request.sampling.temperature = 0;
  request.sampling.top_p = 1;
  request.sampling.logit_bias = {{99, -100.0f}};
  request.sampling.allowed_token_ids = {0, 99};
  request.sampling.banned_token_ids = {0};
  request.stop.stop = {std::string(256, 'x')};
  request.n = 128;
  request.num_logprobs = 20;
  request.num_prompt_logprobs = 0;
  request.priority = -1000;
  EXPECT_TRUE(ValidateRequest(request, kVocab).ok()) << ValidateRequest(request, kVocab);
}

TEST(ValidateRequest, FieldOutOfRange_IsNamed) {
  const double nan = std::nan("");
  const std::vector<BadField> cases = {
      {"prompt", [](Request* r) { r->prompt.clear(); }},
      {"prompt[1]", [](Request* r) { r->prompt[1] = 100; }},
      {"prompt[2]", [](Request* r) { r->prompt[2] = -1; }},
      {"request_id", [](Request* r) { r->id = std::string(257, 'x'); }},
      {"n", [](Request* r) { r->n = 0; }},
      {"n", [](Request* r) { r->n = 129; }},
      {"priority", [](Request* r) { r->priority = 1001; }},
      {"logprobs", [](Request* r) { r->num_logprobs = 21; }},
      {"logprobs", [](Request* r) { r->num_logprobs = -2; }},
      {"prompt_logprobs", [](Request* r) { r->num_prompt_logprobs = 21; }},
      {"sampling.temperature", [](Request* r) { r->sampling.temperature = -0.1; }},
      {"sampling.temperature", [](Request* r) { r->sampling.temperature = 101; }},
      {"sampling.temperature", [nan](Request* r) { r->sampling.temperature = nan; }},
      {"sampling.top_k", [](Request* r) { r->sampling.top_k = -1; }},
      {"sampling.top_p", [](Request* r) { r->sampling.top_p = 0; }},
      {"sampling.top_p", [](Request* r) { r->sampling.top_p = 1.01; }},
      {"sampling.min_p", [](Request* r) { r->sampling.min_p = 1.01; }},
      {"sampling.typical_p", [](Request* r) { r->sampling.typical_p = 0; }},
      {"sampling.repetition_penalty", [](Request* r) { r->sampling.repetition_penalty = 0; }},
      {"sampling.presence_penalty", [](Request* r) { r->sampling.presence_penalty = 2.5; }},
      {"sampling.frequency_penalty", [](Request* r) { r->sampling.frequency_penalty = -2.5; }},
      {"sampling.banned_token_ids",
       [](Request* r) {
         r->sampling.banned_token_ids.assign(101, 5);  // more than there are ids
       }},
      {"stop.token_ids", [](Request* r) { r->stop.stop_token_ids.assign(101, 5); }},
      {"sampling.logit_bias[100]",
       [](Request* r) {
         r->sampling.logit_bias = {{100, 1.0f}};
       }},
      {"sampling.logit_bias[4]",
       [](Request* r) {
         r->sampling.logit_bias = {{4, 100.5f}};
       }},
      {"sampling.logit_bias[4]",
       [nan](Request* r) {
         r->sampling.logit_bias = {{4, static_cast<float>(nan)}};
       }},
      {"sampling.allowed_token_ids[0]", [](Request* r) { r->sampling.allowed_token_ids = {100}; }},
      {"sampling.banned_token_ids[1]",
       [](Request* r) {
         r->sampling.banned_token_ids = {1, -1};
       }},
      {"sampling.banned_token_ids",
       [](Request* r) {
         r->sampling.allowed_token_ids = {5, 6};
         r->sampling.banned_token_ids = {6, 5};
       }},
      {"sampling.banned_token_ids",
       [](Request* r) {
         for (int32_t id = 0; id < kVocab; ++id) r->sampling.banned_token_ids.push_back(id);
       }},
      {"stop.max_tokens", [](Request* r) { r->stop.max_tokens = -1; }},
      {"stop.max_tokens", [](Request* r) { r->stop.max_tokens = std::numeric_limits<int64_t>::max(); }},
      {"stop.min_tokens", [](Request* r) { r->stop.min_tokens = 11; }},
      {"stop.min_tokens", [](Request* r) { r->stop.min_tokens = -1; }},
      {"stop.strings", [](Request* r) { r->stop.stop.assign(17, "x"); }},
      {"stop.strings[1]",
       [](Request* r) {
         r->stop.stop = {"x", ""};
       }},
      {"stop.strings[0]", [](Request* r) { r->stop.stop = {std::string(257, 'x')}; }},
      {"stop.token_ids[0]", [](Request* r) { r->stop.stop_token_ids = {100}; }},
  };
  for (const BadField& bad : cases) {
    Request request = Good();
    bad.spoil(&request);
    const absl::Status status = ValidateRequest(request, kVocab);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.field;
    EXPECT_EQ(FieldOf(status).value_or("no field"), bad.field) << status;
    EXPECT_NE(status.message().find("expected"), absl::string_view::npos) << status;
  }
}

TEST(Errors, Overloaded_CarriesItsHint) {
  const absl::Status status = Overloaded("full", absl::Milliseconds(1500));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryAfterOf(status), absl::Milliseconds(1500));
  EXPECT_EQ(std::string(status.message()), "full; retry in 1.5s");
  EXPECT_EQ(RetryAfterOf(absl::OkStatus()), std::nullopt);
  EXPECT_EQ(FieldOf(status), std::nullopt);
}

}  // namespace
}  // namespace statehouse
