#include "clients/cli/response.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace statehouse::cli {
namespace {

using Json = nlohmann::json;

v1::GenerateEvent Event(const std::string& text) {
  v1::GenerateEvent event;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &event)) << text;
  return event;
}

ResponseCollector TwoOutputs() {
  ResponseCollector collector;
  for (const char* text : {
           "started { request_id: 'r' model: 'm' seed: 18446744073709551615 prompt_tokens: 2 prompt_token_ids: [7, 8] "
           "}",
           "prompt_logprobs { tokens { token_id: 8 text: 'b' logprob: -1.5 position: 1 } }",
           "delta { index: 1 text: 'x' token_ids: [3] }",
           "delta { index: 0 text: 'he' token_ids: [1] logprobs { token_id: 1 text: 'he' logprob: -0.25 position: 2"
           "        top { token_id: 1 text: 'he' logprob: -0.25 } } }",
           "delta { index: 0 token_ids: [2] logprobs { token_id: 2 logprob: -2 position: 3 } }",
           "finished { index: 0 reason: FINISH_REASON_STOP stop_string: 'END' text: 'llo' completion_tokens: 2 }",
           "finished { index: 1 reason: FINISH_REASON_LENGTH completion_tokens: 1 }",
           "done { usage { prompt_tokens: 2 completion_tokens: 3 total_tokens: 5 } timings { queued: 0.5 total: 2 } }",
       }) {
    collector.Add(Event(text));
  }
  return collector;
}

TEST(ResponseCollector, EventsOfTwoOutputsMixed_AreSortedApart) {
  const v1::GenerateResponse response = TwoOutputs().response();
  ASSERT_EQ(response.outputs_size(), 2);
  EXPECT_EQ(response.outputs(0).text(), "hello");
  EXPECT_THAT(response.outputs(0).token_ids(), testing::ElementsAre(1, 2));
  EXPECT_EQ(response.outputs(0).stop_string(), "END");
  EXPECT_EQ(response.outputs(1).text(), "x");
  EXPECT_EQ(response.outputs(1).reason(), v1::FINISH_REASON_LENGTH);
}

TEST(ResponseJson, WholeResponse_HasEveryKey) {
  const Json expected = Json::parse(R"({
    "request_id": "r", "model": "m", "seed": 18446744073709551615, "prompt_token_ids": [7, 8],
    "prompt_logprobs": [{"token_id": 8, "text": "b", "logprob": -1.5, "position": 1, "top": []}],
    "outputs": [
      {"index": 0, "token_ids": [1, 2], "text": "hello", "finish_reason": "stop", "stop_string": "END", "stop_token_id": null,
       "logprobs": [{"token_id": 1, "text": "he", "logprob": -0.25, "position": 2,
                     "top": [{"token_id": 1, "text": "he", "logprob": -0.25}]},
                    {"token_id": 2, "text": "", "logprob": -2.0, "position": 3, "top": []}]},
      {"index": 1, "token_ids": [3], "text": "x", "finish_reason": "length", "stop_string": null, "stop_token_id": null,
       "logprobs": null}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5, "cached_tokens": 0},
    "timings": {"queued": 0.5, "prefill": 0.0, "decode": 0.0, "time_to_first_token": 0.0, "total": 2.0},
    "cache": null
  })");
  EXPECT_EQ(Json::parse(ResponseJson(TwoOutputs().response(), absl::OkStatus())), expected);
}

TEST(ResponseJson, CacheReport_IsShownInWords) {
  ResponseCollector collector;
  collector.Add(
      Event("started { cache { cached_tokens: 5 tier: CACHE_TIER_HOST miss: CACHE_MISS_NO_SNAPSHOT"
            " matched_tokens: 7 explanation: 'because' } }"));
  EXPECT_EQ(Json::parse(ResponseJson(collector.response(), absl::OkStatus()))["cache"],
            Json({{"cached_tokens", 5},
                  {"tier", "host"},
                  {"miss", "no_snapshot"},
                  {"matched_tokens", 7},
                  {"explanation", "because"}}));
  collector.Add(Event("done { cache { miss: CACHE_MISS_BYPASSED } }"));
  const Json last = Json::parse(ResponseJson(collector.response(), absl::OkStatus()))["cache"];
  EXPECT_EQ(last["miss"], "bypassed");
  EXPECT_TRUE(last["tier"].is_null());
}

TEST(ResponseJson, FailedCall_KeepsWhatCameAndSaysWhy) {
  ResponseCollector collector;
  collector.Add(Event("delta { index: 0 text: 'ha' token_ids: [1] }"));
  const Json json = Json::parse(ResponseJson(collector.response(), absl::ResourceExhaustedError("queue full")));
  EXPECT_EQ(json["outputs"][0]["text"], "ha");
  EXPECT_TRUE(json["outputs"][0]["finish_reason"].is_null());
  EXPECT_EQ(json["error"], Json({{"code", "RESOURCE_EXHAUSTED"}, {"message", "queue full"}}));
}

TEST(ResponseJson, BytesThatAreNoText_StillMakeJson) {
  v1::GenerateResponse response;
  response.add_outputs()->set_text("a\xFF");
  EXPECT_EQ(Json::parse(ResponseJson(response, absl::OkStatus()))["outputs"][0]["text"], "a\uFFFD");
}

}  // namespace
}  // namespace statehouse::cli
