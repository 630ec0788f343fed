// gRPC, protobuf and SentencePiece in one process: Debian's libsentencepiece carries a protobuf of its own, and with
// the wrong linking this program does not even start. cmake/StatehouseGrpc.cmake says what is done about it.
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "models/tokenizer/tokenizer.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse {
namespace {

TEST(OneProcess, ProtobufAndSentencePiece_BothWork) {
  auto tokenizer = Tokenizer::Load(STATEHOUSE_SOURCE_DIR "/models/demo/checkpoint");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ASSERT_EQ((*tokenizer)->kind(), "sentencepiece");
  v1::GenerateRequest request;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "text: 'the engine owns the device' sampling { logit_bias { key: 1 value: 2 } }", &request));
  v1::GenerateRequest copy;
  ASSERT_TRUE(copy.ParseFromString(request.SerializeAsString()));
  EXPECT_EQ(copy.sampling().logit_bias().at(1), 2);
  std::vector<int32_t> ids;
  ASSERT_TRUE((*tokenizer)->Encode(copy.text(), {}, &ids).ok());
  EXPECT_GT(ids.size(), 3u);
  EXPECT_EQ((*tokenizer)->Decode(ids), copy.text());
}

}  // namespace
}  // namespace statehouse
