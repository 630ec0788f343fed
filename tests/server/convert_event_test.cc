#include "server/convert_event.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "tests/support/server_fixture.h"

namespace statehouse {
namespace {

using ::testing::ElementsAre;
using testing::FakeTokenizer;
using Result = EventConverter::Result;

class ConvertEvent : public ::testing::Test {
 protected:
  EventConverter Make(int n = 1) {
    stream_ = std::make_shared<EventStream>("id", n, 600);
    return EventConverter(request_, &model_, stream_, {1, 2});
  }
  // The engine's side: a token whose text is final up to `text_bytes`.
  void Token(int32_t token, int64_t text_bytes, int32_t output = 0) {
    Event event;
    event.kind = Event::Kind::kToken;
    event.token = token;
    event.text_bytes = text_bytes;
    event.output = output;
    event.position = 2;
    event.logprob = -0.5f;
    event.num_top = 1;
    event.top[0] = {token, -0.5f};
    stream_->Push(event);
  }
  void OutputEnd(int64_t text_bytes, FinishReason reason = FinishReason::kStop, int32_t stop_index = -1) {
    Event event;
    event.kind = Event::Kind::kOutputFinished;
    event.reason = reason;
    event.text_bytes = text_bytes;
    event.stop_index = stop_index;
    stream_->Push(event);
  }

  FakeTokenizer tokenizer_;
  ServedModel model_ = testing::FakeServedModel(nullptr, &tokenizer_);
  v1::GenerateRequest request_;
  std::shared_ptr<EventStream> stream_;
  v1::GenerateEvent out_;
};

TEST_F(ConvertEvent, TokensThatWaitTogether_BecomeOneDelta) {
  auto converter = Make();
  Token('a', 1);
  Token('b', 2);
  Token('c', 3);
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.delta().text(), "abc");
  EXPECT_THAT(out_.delta().token_ids(), ElementsAre('a', 'b', 'c'));
  EXPECT_EQ(out_.delta().logprobs_size(), 0) << "not asked for";
  EXPECT_EQ(converter.Take(&out_), Result::kNothing);
}

TEST_F(ConvertEvent, ADelta_HoldsABoundedNumberOfTokens) {
  auto converter = Make();
  for (int i = 0; i < 300; ++i) Token('x', i + 1);
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.delta().token_ids_size(), 256);
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.delta().token_ids_size(), 44);
}

TEST_F(ConvertEvent, TokensOfTwoOutputs_StayApart) {
  auto converter = Make(2);
  Token('a', 1, 0);
  Token('b', 1, 1);
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.delta().index(), 0);
  EXPECT_EQ(out_.delta().text(), "a");
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.delta().index(), 1);
  EXPECT_EQ(out_.delta().text(), "b");
}

TEST_F(ConvertEvent, HeldBackText_ComesOnceItIsFinal) {
  auto converter = Make();
  Token('a', 1);
  Token('E', 1);  // may be the start of a stop string
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.delta().text(), "a");
  Token('x', 3);
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.delta().text(), "Ex");
}

TEST_F(ConvertEvent, AStopString_CutsTheTextBeforeIt) {
  request_.mutable_stop()->add_strings("END");
  auto converter = Make();
  Token('a', 1);
  for (const char c : std::string_view("END")) Token(c, 1);
  OutputEnd(1, FinishReason::kStop, 0);
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.delta().text(), "a");
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.finished().text(), "");
  EXPECT_EQ(out_.finished().stop_string(), "END");
  EXPECT_EQ(out_.finished().completion_tokens(), 4);
}

TEST_F(ConvertEvent, ACharacterOfSeveralTokens_IsNeverCut) {
  auto converter = Make();
  request_.set_return_token_ids(false);
  const std::string euro = "\xE2\x82\xAC";
  Token(static_cast<unsigned char>(euro[0]), 0);
  Token(static_cast<unsigned char>(euro[1]), 0);
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.delta().text(), "");
  Token(static_cast<unsigned char>(euro[2]), 3);
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.delta().text(), euro);
}

TEST_F(ConvertEvent, WithoutTokenIds_ADeltaThatSaysNothingIsNotSent) {
  request_.set_return_token_ids(false);
  auto converter = Make();
  Token(0xE2, 0);
  EXPECT_EQ(converter.Take(&out_), Result::kNothing);
  EXPECT_EQ(out_.event_case(), v1::GenerateEvent::EVENT_NOT_SET);
}

TEST_F(ConvertEvent, AnUnfinishedCharacterAtTheEnd_BecomesAReplacement) {
  auto converter = Make();
  Token(0xE2, 0);
  OutputEnd(3, FinishReason::kLength);
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.finished().text(), "\xEF\xBF\xBD");
  EXPECT_EQ(out_.finished().reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(ConvertEvent, Logprobs_NameTheTokensText) {
  request_.set_logprobs(1);
  auto converter = Make();
  Token(FakeTokenizer::kImEnd, 0);
  Token(0xFF, 0);
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  ASSERT_EQ(out_.delta().logprobs_size(), 2);
  EXPECT_EQ(out_.delta().logprobs(0).text(), "<|im_end|>");
  EXPECT_EQ(out_.delta().logprobs(0).top(0).token_id(), FakeTokenizer::kImEnd);
  EXPECT_EQ(out_.delta().logprobs(0).position(), 2);
  EXPECT_EQ(out_.delta().logprobs(1).text(), "\xEF\xBF\xBD") << "bytes that are not UTF-8 cannot be in a string";
}

TEST_F(ConvertEvent, SpecialTokens_ShowOnlyWhenAsked) {
  request_.set_show_special_tokens(true);
  auto converter = Make();
  Token(FakeTokenizer::kImEnd, 10);
  ASSERT_EQ(converter.Take(&out_), Result::kEvent);
  EXPECT_EQ(out_.delta().text(), "<|im_end|>");
}

TEST_F(ConvertEvent, FoldedEvents_SayTheSameAsTheStream) {
  auto converter = Make();
  Event started;
  started.kind = Event::Kind::kStarted;
  started.seed = 77;
  stream_->Push(started);
  Token('h', 1);
  Token('i', 2);
  OutputEnd(2);
  Usage usage;
  usage.prompt_tokens = 2;
  usage.completion_tokens = 2;
  stream_->Finish(absl::OkStatus(), usage, Timings());
  v1::GenerateResponse response;
  Result result;
  do {
    result = converter.Take(&out_);
    Fold(out_, &response);
  } while (result == Result::kEvent);
  EXPECT_EQ(result, Result::kDone);
  EXPECT_EQ(response.seed(), 77u);
  EXPECT_EQ(response.model(), "fake");
  EXPECT_THAT(response.prompt_token_ids(), ElementsAre(1, 2));
  ASSERT_EQ(response.outputs_size(), 1);
  EXPECT_EQ(response.outputs(0).text(), "hi");
  EXPECT_THAT(response.outputs(0).token_ids(), ElementsAre('h', 'i'));
  EXPECT_EQ(response.outputs(0).reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(response.usage().total_tokens(), 4);
}

}  // namespace
}  // namespace statehouse
