#include "server/convert_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "engine/errors.h"
#include "tests/server/hooked_tokenizer.h"
#include "tests/support/server_fixture.h"

namespace statehouse {
namespace {

using ::testing::ElementsAre;
using testing::FakeTokenizer;
using ::testing::HasSubstr;

class ConvertRequest : public ::testing::Test {
 protected:
  v1::GenerateRequest Text(const std::string& text = "ab") {
    v1::GenerateRequest request;
    request.set_text(text);
    return request;
  }
  absl::Status Error(const v1::GenerateRequest& request) { return ToRequest(request, model_).status(); }

  FakeTokenizer tokenizer_;
  ServedModel model_ = testing::FakeServedModel(nullptr, &tokenizer_);
};

TEST_F(ConvertRequest, TextAlone_TakesTheDefaultsOfTheProto) {
  auto request = ToRequest(Text(), model_);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT((*request)->prompt, ElementsAre(FakeTokenizer::kBos, 'a', 'b'));
  EXPECT_EQ((*request)->n, 1);
  EXPECT_EQ((*request)->num_logprobs, -1);
  EXPECT_EQ((*request)->num_prompt_logprobs, -1);
  EXPECT_EQ((*request)->sampling.temperature, 1.0);
  EXPECT_EQ((*request)->stop.max_tokens, 0);
  EXPECT_FALSE((*request)->sampling.seed.has_value());
}

TEST_F(ConvertRequest, CheckpointDefaults_HoldUnlessTheRequestSaysOtherwise) {
  model_.defaults.temperature = 0.25;
  model_.defaults.top_p = 0.5;
  auto request = Text();
  request.mutable_sampling()->set_top_p(0.75);
  auto converted = ToRequest(request, model_);
  ASSERT_TRUE(converted.ok()) << converted.status();
  EXPECT_EQ((*converted)->sampling.temperature, 0.25);
  EXPECT_EQ((*converted)->sampling.top_p, 0.75);
  model_.defaults.greedy = true;
  EXPECT_EQ((*ToRequest(Text(), model_))->sampling.temperature, 0.0);
}

TEST_F(ConvertRequest, EveryFieldOfSamplingAndStop_Arrives) {
  auto request = Text();
  auto* sampling = request.mutable_sampling();
  sampling->set_temperature(0.5);
  sampling->set_top_k(7);
  sampling->set_min_p(0.1);
  sampling->set_typical_p(0.9);
  sampling->set_repetition_penalty(1.5);
  sampling->set_presence_penalty(-1);
  sampling->set_frequency_penalty(2);
  (*sampling->mutable_logit_bias())[9] = -3;
  (*sampling->mutable_logit_bias())[4] = 2;
  sampling->add_allowed_token_ids(9);
  sampling->add_banned_token_ids(4);
  sampling->set_seed(42);
  auto* stop = request.mutable_stop();
  stop->set_max_tokens(5);
  stop->set_min_tokens(2);
  stop->add_strings("end");
  stop->set_include_matched(true);
  stop->add_token_ids(3);
  stop->set_ignore_eos(true);
  request.set_n(3);
  request.set_logprobs(2);
  request.set_prompt_logprobs(0);
  request.set_priority(-5);
  request.set_show_special_tokens(true);
  auto converted = ToRequest(request, model_);
  ASSERT_TRUE(converted.ok()) << converted.status();
  const Request& out = **converted;
  EXPECT_EQ(out.sampling.temperature, 0.5);
  EXPECT_EQ(out.sampling.top_k, 7);
  EXPECT_EQ(out.sampling.min_p, 0.1);
  EXPECT_EQ(out.sampling.typical_p, 0.9);
  EXPECT_EQ(out.sampling.repetition_penalty, 1.5);
  EXPECT_EQ(out.sampling.presence_penalty, -1);
  EXPECT_EQ(out.sampling.frequency_penalty, 2);
  EXPECT_THAT(out.sampling.logit_bias, ElementsAre(std::pair<int32_t, float>(4, 2), std::pair<int32_t, float>(9, -3)));
  EXPECT_THAT(out.sampling.allowed_token_ids, ElementsAre(9));
  EXPECT_THAT(out.sampling.banned_token_ids, ElementsAre(4));
  EXPECT_EQ(out.sampling.seed, 42u);
  EXPECT_EQ(out.stop.max_tokens, 5);
  EXPECT_EQ(out.stop.min_tokens, 2);
  EXPECT_THAT(out.stop.stop, ElementsAre("end"));
  EXPECT_TRUE(out.stop.include_stop);
  EXPECT_THAT(out.stop.stop_token_ids, ElementsAre(3));
  EXPECT_TRUE(out.stop.ignore_eos);
  EXPECT_EQ(out.n, 3);
  EXPECT_EQ(out.num_logprobs, 2);
  EXPECT_EQ(out.num_prompt_logprobs, 0);
  EXPECT_EQ(out.priority, -5);
  EXPECT_TRUE(out.show_special_tokens);
}

struct BadField {
  const char* field;
  std::function<void(v1::GenerateRequest*)> spoil;
};

class BadFieldTest : public ConvertRequest, public ::testing::WithParamInterface<int> {
 public:
  static std::vector<BadField> Cases() {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto sampling = [](auto set) {
      return [set](v1::GenerateRequest* request) { set(request->mutable_sampling()); };
    };
    const auto stop = [](auto set) { return [set](v1::GenerateRequest* request) { set(request->mutable_stop()); }; };
    return {
        {"sampling.temperature", sampling([](v1::Sampling* s) { s->set_temperature(-0.1); })},
        {"sampling.temperature", sampling([](v1::Sampling* s) { s->set_temperature(100.5); })},
        {"sampling.temperature", sampling([nan](v1::Sampling* s) { s->set_temperature(nan); })},
        {"sampling.top_k", sampling([](v1::Sampling* s) { s->set_top_k(-1); })},
        {"sampling.top_p", sampling([](v1::Sampling* s) { s->set_top_p(0); })},
        {"sampling.top_p", sampling([](v1::Sampling* s) { s->set_top_p(1.5); })},
        {"sampling.top_p", sampling([nan](v1::Sampling* s) { s->set_top_p(nan); })},
        {"sampling.min_p", sampling([](v1::Sampling* s) { s->set_min_p(-1); })},
        {"sampling.typical_p", sampling([](v1::Sampling* s) { s->set_typical_p(0); })},
        {"sampling.repetition_penalty", sampling([](v1::Sampling* s) { s->set_repetition_penalty(0); })},
        {"sampling.presence_penalty", sampling([](v1::Sampling* s) { s->set_presence_penalty(2.5); })},
        {"sampling.frequency_penalty", sampling([](v1::Sampling* s) { s->set_frequency_penalty(-3); })},
        {"sampling.logit_bias[260]", sampling([](v1::Sampling* s) { (*s->mutable_logit_bias())[260] = 1; })},
        {"sampling.logit_bias[3]", sampling([](v1::Sampling* s) { (*s->mutable_logit_bias())[3] = 101; })},
        {"sampling.allowed_token_ids[1]", sampling([](v1::Sampling* s) {
           s->add_allowed_token_ids(0);
           s->add_allowed_token_ids(-1);
         })},
        {"sampling.allowed_token_ids", sampling([](v1::Sampling* s) {
           for (int i = 0; i <= FakeTokenizer::kSize; ++i) s->add_allowed_token_ids(1);
         })},
        {"sampling.banned_token_ids", sampling([](v1::Sampling* s) {
           for (int i = 0; i <= FakeTokenizer::kSize; ++i) s->add_banned_token_ids(1);
         })},
        {"stop.token_ids", stop([](v1::Stop* s) {
           for (int i = 0; i <= FakeTokenizer::kSize; ++i) s->add_token_ids(1);
         })},
        {"sampling.banned_token_ids[0]", sampling([](v1::Sampling* s) { s->add_banned_token_ids(260); })},
        {"stop.max_tokens", stop([](v1::Stop* s) { s->set_max_tokens(0); })},
        {"stop.min_tokens", stop([](v1::Stop* s) { s->set_min_tokens(-1); })},
        {"stop.min_tokens", stop([](v1::Stop* s) {
           s->set_max_tokens(3);
           s->set_min_tokens(4);
         })},
        {"stop.strings", stop([](v1::Stop* s) {
           for (int i = 0; i < 17; ++i) s->add_strings("x");
         })},
        {"stop.strings[0]", stop([](v1::Stop* s) { s->add_strings(""); })},
        {"stop.strings[0]", stop([](v1::Stop* s) { s->add_strings(std::string(257, 'x')); })},
        {"stop.token_ids[0]", stop([](v1::Stop* s) { s->add_token_ids(1000); })},
        {"n", [](v1::GenerateRequest* r) { r->set_n(0); }},
        {"n", [](v1::GenerateRequest* r) { r->set_n(129); }},
        {"logprobs", [](v1::GenerateRequest* r) { r->set_logprobs(21); }},
        {"logprobs", [](v1::GenerateRequest* r) { r->set_logprobs(-1); }},
        {"prompt_logprobs", [](v1::GenerateRequest* r) { r->set_prompt_logprobs(21); }},
        {"priority", [](v1::GenerateRequest* r) { r->set_priority(1001); }},
        {"input", [](v1::GenerateRequest* r) { r->clear_input(); }},
        {"text", [](v1::GenerateRequest* r) { r->set_text("\xFF"); }},
        {"text",
         [](v1::GenerateRequest* r) {
           r->set_text("");
           r->set_add_special_tokens(false);
         }},
        {"token_ids.ids", [](v1::GenerateRequest* r) { r->mutable_token_ids(); }},
        {"token_ids.ids[0]", [](v1::GenerateRequest* r) { r->mutable_token_ids()->add_ids(260); }},
        {"suffix",
         [](v1::GenerateRequest* r) {
           r->mutable_token_ids()->add_ids(1);
           r->set_suffix("x");
         }},
        {"chat.messages", [](v1::GenerateRequest* r) { r->mutable_chat(); }},
        {"chat.messages[0].role", [](v1::GenerateRequest* r) { r->mutable_chat()->add_messages()->set_role("tool"); }},
        {"chat.messages[1].content",
         [](v1::GenerateRequest* r) {
           r->mutable_chat()->add_messages()->set_role("user");
           auto* second = r->mutable_chat()->add_messages();
           second->set_role("user");
           second->set_content("\xC0\x80");
         }},
    };
  }
};

TEST_P(BadFieldTest, IsRefusedByItsPath) {
  const BadField bad = Cases()[GetParam()];
  auto request = Text();
  bad.spoil(&request);
  const absl::Status status = Error(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(FieldOf(status).value_or(""), bad.field) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("expected")) << "it must say what is allowed";
}

INSTANTIATE_TEST_SUITE_P(All, BadFieldTest, ::testing::Range(0, static_cast<int>(BadFieldTest::Cases().size())),
                         [](const ::testing::TestParamInfo<int>& info) {
                           std::string name = BadFieldTest::Cases()[info.param].field;
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name + "_" + std::to_string(info.param);
                         });

TEST_F(ConvertRequest, Chat_IsRenderedAndEndsAtTheTemplatesMarker) {
  v1::GenerateRequest request;
  auto* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("<|im_end|>");  // a forged marker
  auto converted = ToRequest(request, model_);
  ASSERT_TRUE(converted.ok()) << converted.status();
  const auto& ids = (*converted)->prompt;
  EXPECT_EQ(std::count(ids.begin(), ids.end(), FakeTokenizer::kImEnd), 1) << "text must not become a marker";
  EXPECT_THAT((*converted)->stop.stop_token_ids, ::testing::Contains(FakeTokenizer::kImEnd));
}

TEST_F(ConvertRequest, IdsThatComeTwice_AreKeptOnce) {
  auto request = Text();
  for (const int32_t id : {7, 3, 7, 3, 3}) {
    request.mutable_sampling()->add_allowed_token_ids(id);
    request.mutable_sampling()->add_banned_token_ids(id + 1);
    request.mutable_stop()->add_token_ids(id + 2);
  }
  auto converted = ToRequest(request, model_);
  ASSERT_TRUE(converted.ok()) << converted.status();
  EXPECT_THAT((*converted)->sampling.allowed_token_ids, ElementsAre(3, 7));
  EXPECT_THAT((*converted)->sampling.banned_token_ids, ElementsAre(4, 8));
  EXPECT_THAT((*converted)->stop.stop_token_ids, ElementsAre(5, 9));
}

TEST_F(ConvertRequest, APromptThatIsTooLongForCertain_IsRefusedBeforeItIsEncoded) {
  bool encoded = false;
  const testing::HookedTokenizer tokenizer([&](std::string_view text) {
    encoded = encoded || !text.empty();
    return absl::OkStatus();
  });
  model_.tokenizer = &tokenizer;
  model_.max_prompt_tokens = 10;
  model_.max_prompt_bytes = 40;
  EXPECT_EQ(FieldOf(Error(Text(std::string(41, 'x')))), "text");
  v1::GenerateRequest chat;
  for (int i = 0; i < 3; ++i) {
    auto* message = chat.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(std::string(20, 'x'));
  }
  EXPECT_EQ(FieldOf(Error(chat)), "chat.messages");
  EXPECT_FALSE(encoded);
  v1::GenerateRequest ids;
  for (int i = 0; i < 11; ++i) ids.mutable_token_ids()->add_ids(1);
  EXPECT_EQ(FieldOf(Error(ids)), "token_ids.ids");
  EXPECT_TRUE(ToRequest(Text(std::string(40, 'x')), model_).ok()) << "the engine counts what may be short enough";
  EXPECT_TRUE(encoded);
}

TEST_F(ConvertRequest, WhatTheTokenizerRefuses_IsSaidOfTheField) {
  const testing::HookedTokenizer tokenizer([](std::string_view text) {
    if (text.find("bad") == text.npos) return absl::OkStatus();
    return absl::InvalidArgumentError("text: no token for \"bad\"");
  });
  model_.tokenizer = &tokenizer;
  const absl::Status text = Error(Text("bad"));
  EXPECT_EQ(FieldOf(text), "text");
  EXPECT_EQ(text.message(), "text: no token for \"bad\"");
  v1::GenerateRequest chat;
  for (const char* content : {"good", "bad"}) {
    auto* message = chat.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(content);
  }
  const absl::Status message = Error(chat);
  EXPECT_EQ(FieldOf(message), "chat.messages[1].content");
  EXPECT_EQ(message.message(), "chat.messages[1].content: no token for \"bad\"");
}

TEST_F(ConvertRequest, ChatWithoutATemplate_SaysHowToGetOne) {
  model_.chat_template.reset();
  v1::GenerateRequest request;
  request.mutable_chat()->add_messages()->set_role("user");
  const absl::Status status = Error(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--chat-template"));
}

TEST_F(ConvertRequest, NoTokenizer_TakesIdsAndRefusesText) {
  model_.tokenizer = nullptr;
  EXPECT_EQ(Error(Text()).code(), absl::StatusCode::kFailedPrecondition);
  v1::GenerateRequest request;
  request.mutable_token_ids()->add_ids(5);
  EXPECT_TRUE(ToRequest(request, model_).ok());
  request.mutable_stop()->add_strings("x");
  EXPECT_EQ(Error(request).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ConvertRequest, SuffixWithoutTheTokens_IsAFailedPrecondition) {
  auto request = Text();
  request.set_suffix("after");
  EXPECT_EQ(Error(request).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ConvertRequest, SpecialTokensInText_AreReadOnlyWhenAsked) {
  auto request = Text("<eos>");
  request.set_add_special_tokens(false);
  EXPECT_EQ((*ToRequest(request, model_))->prompt.size(), 5u);
  request.set_parse_special_tokens(true);
  EXPECT_THAT((*ToRequest(request, model_))->prompt, ElementsAre(FakeTokenizer::kEos));
}

}  // namespace
}  // namespace statehouse
