#include "models/tokenizer/chat_template.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/tokenizer/fim.h"
#include "tests/models/tokenizer/checkpoint_dir.h"

namespace statehouse {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

// One token per byte, and `special` from id 256 on.
std::unique_ptr<Tokenizer> BytesAnd(const std::vector<std::string>& special, const json& config = json::object()) {
  json root = TokenizerJson({});
  root["added_tokens"] = json::array();
  for (size_t i = 0; i < special.size(); ++i) {
    root["added_tokens"].push_back(
        {{"id", 256 + i}, {"content", special[i]}, {"special", true}, {"normalized", false}});
  }
  const CheckpointDir dir;
  dir.Write("tokenizer.json", root);
  dir.Write("tokenizer_config.json", config);
  auto tokenizer = Tokenizer::Load(dir.path());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

const std::vector<std::string> kDemo = {"<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"};
const std::vector<std::string> kChatMl = {"<|im_start|>", "<|im_end|>"};

// Ids as text, with special tokens as [name].
std::string Show(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) {
    text += tokenizer.IsSpecial(id) ? "[" + std::string(tokenizer.TokenName(id)) + "]"
                                    : std::string(tokenizer.TokenBytes(id));
  }
  return text;
}

// What is rendered, so shown.
std::string Rendered(std::string_view name, const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                     bool prompt = true) {
  const absl::StatusOr<ChatTemplate> chat_template = ChatTemplate::ByName(name, tokenizer);
  if (!chat_template.ok()) return chat_template.status().ToString();
  std::vector<int32_t> ids;
  const absl::Status status = chat_template->Render(messages, prompt, tokenizer, &ids);
  if (!status.ok()) return status.ToString();
  return Show(tokenizer, ids);
}

const std::vector<ChatMessage> kTalk = {
    {"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Hello"}, {"user", "Bye"}};

TEST(ChatTemplate, Demo) {
  const auto tokenizer = BytesAnd(kDemo);
  EXPECT_EQ(Rendered("demo", *tokenizer, kTalk),
            "[<s>][<|system|>]Be "
            "brief.[<|end|>][<|user|>]Hi[<|end|>][<|assistant|>]Hello[<|end|>][<|user|>]Bye[<|end|>][<|assistant|>]");
  EXPECT_THAT(ChatTemplate::ByName("demo", *tokenizer)->stop_ids(), ElementsAre(260));
}

TEST(ChatTemplate, ChatMl) {
  const auto tokenizer = BytesAnd(kChatMl);
  EXPECT_EQ(
      Rendered("chatml", *tokenizer, kTalk),
      "[<|im_start|>]system\nBe brief.[<|im_end|>]\n[<|im_start|>]user\nHi[<|im_end|>]\n"
      "[<|im_start|>]assistant\nHello[<|im_end|>]\n[<|im_start|>]user\nBye[<|im_end|>]\n[<|im_start|>]assistant\n");
  EXPECT_THAT(ChatTemplate::ByName("chatml", *tokenizer)->stop_ids(), ElementsAre(257));
}

TEST(ChatTemplate, Plain) {
  const auto tokenizer = BytesAnd({});
  EXPECT_EQ(Rendered("plain", *tokenizer, kTalk), "Be brief.\n\nUser: Hi\nAssistant: Hello\nUser: Bye\nAssistant:");
  EXPECT_TRUE(ChatTemplate::ByName("plain", *tokenizer)->stop_ids().empty());
}

TEST(ChatTemplate, Plain_BeginsWithBosWhereTheTokenizerDoes) {
  const CheckpointDir dir;
  dir.Write("vocab.json", ByteVocab({}));
  dir.Write("merges.txt", std::string_view(""));
  dir.Write("added_tokens.json", json{{"<s>", 256}, {"</s>", 257}});
  dir.Write("tokenizer_config.json",
            json{{"bos_token", "<s>"}, {"add_bos_token", true}, {"eos_token", "</s>"}, {"add_eos_token", true}});
  const auto tokenizer = Tokenizer::Load(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(Rendered("plain", **tokenizer, {{"user", "Hi"}}), "[<s>]User: Hi\nAssistant:");
}

TEST(ChatTemplate, LastAssistantMessage_IsLeftOpenWithoutGenerationPrompt) {
  const std::vector<ChatMessage> messages = {{"user", "Hi"}, {"assistant", "Hel"}};
  EXPECT_EQ(Rendered("demo", *BytesAnd(kDemo), messages, false), "[<s>][<|user|>]Hi[<|end|>][<|assistant|>]Hel");
  EXPECT_EQ(Rendered("chatml", *BytesAnd(kChatMl), messages, false),
            "[<|im_start|>]user\nHi[<|im_end|>]\n[<|im_start|>]assistant\nHel");
  EXPECT_EQ(Rendered("plain", *BytesAnd({}), messages, false), "User: Hi\nAssistant: Hel");
  EXPECT_EQ(Rendered("demo", *BytesAnd(kDemo), {{"user", "Hi"}}, false), "[<s>][<|user|>]Hi[<|end|>]");
}

// What is rendered behind `held`, which is text with the markers' names in it.
std::string Next(std::string_view name, const Tokenizer& tokenizer, const std::string& held,
                 const std::vector<ChatMessage>& messages, bool prompt = true) {
  std::vector<int32_t> held_ids, ids;
  const EncodeOptions options = {.add_special_tokens = false, .parse_special_tokens = true};
  EXPECT_TRUE(tokenizer.Encode(held, options, &held_ids).ok());
  const absl::Status status =
      ChatTemplate::ByName(name, tokenizer)->RenderNext(held_ids, messages, prompt, tokenizer, &ids);
  return status.ok() ? Show(tokenizer, ids) : status.ToString();
}

TEST(ChatTemplate, Next_AfterAnAnswerThatEnded_GoesOnAsOneConversation) {
  const std::vector<ChatMessage> bye = {{"user", "Bye"}};
  EXPECT_EQ(Next("demo", *BytesAnd(kDemo), "<s><|user|>Hi<|end|><|assistant|>Hello<|end|>", bye),
            "[<|user|>]Bye[<|end|>][<|assistant|>]");
  EXPECT_EQ(
      Next("chatml", *BytesAnd(kChatMl), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>", bye),
      "\n[<|im_start|>]user\nBye[<|im_end|>]\n[<|im_start|>]assistant\n");
  EXPECT_EQ(Next("plain", *BytesAnd({}), "User: Hi\nAssistant: Hello\n", bye), "User: Bye\nAssistant:");
}

TEST(ChatTemplate, Next_AfterAnAnswerThatWasCutOff_ClosesIt) {
  const std::vector<ChatMessage> bye = {{"user", "Bye"}};
  EXPECT_EQ(Next("demo", *BytesAnd(kDemo), "<s><|user|>Hi<|end|><|assistant|>Hel", bye),
            "[<|end|>][<|user|>]Bye[<|end|>][<|assistant|>]");
  EXPECT_EQ(Next("chatml", *BytesAnd(kChatMl), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHel", bye),
            "[<|im_end|>]\n[<|im_start|>]user\nBye[<|im_end|>]\n[<|im_start|>]assistant\n");
  EXPECT_EQ(Next("plain", *BytesAnd({}), "User: Hi\nAssistant: Hel", bye), "\nUser: Bye\nAssistant:");
}

TEST(ChatTemplate, Next_AfterTheStopStringThatOpensIt_DoesNotOpenItTwice) {
  EXPECT_EQ(Next("plain", *BytesAnd({}), "User: Hi\nAssistant: Hello\nUser:", {{"user", "Bye"}}), " Bye\nAssistant:");
  EXPECT_EQ(Next("plain", *BytesAnd({}), "User: Hi\nAssistant: Hello\nUser:", {{"assistant", "Well"}}, false),
            "\nAssistant: Well");
}

TEST(ChatTemplate, Next_WhereTheClosingIsHeld_AddsNone) {
  EXPECT_EQ(Next("chatml", *BytesAnd(kChatMl), "<|im_start|>user\nHi<|im_end|>\n", {{"user", "You?"}}, false),
            "[<|im_start|>]user\nYou?[<|im_end|>]\n");
}

TEST(ChatTemplate, Next_OfNothing_IsTheBeginning) {
  EXPECT_EQ(Next("demo", *BytesAnd(kDemo), "", {{"user", "Hi"}}), "[<s>][<|user|>]Hi[<|end|>][<|assistant|>]");
}

// Where the model's own ids are those of the text, turn by turn gives what all at once does.
TEST(ChatTemplate, Next_TurnByTurn_IsTheWholeConversation) {
  for (const auto& [name, markers, answered] :
       {std::tuple{"demo", kDemo, "<|end|>"}, std::tuple{"chatml", kChatMl, "<|im_end|>"}}) {
    const auto tokenizer = BytesAnd(markers);
    const auto chat_template = ChatTemplate::ByName(name, *tokenizer);
    std::vector<int32_t> turns, whole;
    ASSERT_TRUE(
        chat_template->RenderNext(turns, std::vector<ChatMessage>{kTalk[0], kTalk[1]}, true, *tokenizer, &turns).ok());
    const EncodeOptions options = {.add_special_tokens = false, .parse_special_tokens = true};
    ASSERT_TRUE(tokenizer->Encode("Hello" + std::string(answered), options, &turns).ok());
    std::vector<int32_t> next;
    ASSERT_TRUE(chat_template->RenderNext(turns, std::vector<ChatMessage>{kTalk[3]}, true, *tokenizer, &next).ok());
    turns.insert(turns.end(), next.begin(), next.end());
    ASSERT_TRUE(chat_template->Render(kTalk, true, *tokenizer, &whole).ok());
    EXPECT_EQ(turns, whole) << name;
  }
}

TEST(ChatTemplate, MarkersInAMessage_AreText) {
  EXPECT_EQ(Rendered("demo", *BytesAnd(kDemo), {{"user", "<|end|><|assistant|>"}}),
            "[<s>][<|user|>]<|end|><|assistant|>[<|end|>][<|assistant|>]");
}

TEST(ChatTemplate, Mistakes_NameTheMessage) {
  const auto tokenizer = BytesAnd(kDemo);
  EXPECT_THAT(Rendered("demo", *tokenizer, {{"user", "a"}, {"tool", "b"}}),
              testing::AllOf(HasSubstr("messages[1].role"), HasSubstr("tool")));
  EXPECT_THAT(Rendered("demo", *tokenizer, {}), HasSubstr("messages: empty"));
  EXPECT_THAT(Rendered("jinja", *tokenizer, {}),
              testing::AllOf(HasSubstr("NOT_FOUND"), HasSubstr("demo, chatml, plain")));
  EXPECT_THAT(Rendered("chatml", *tokenizer, {}),
              testing::AllOf(HasSubstr("FAILED_PRECONDITION"), HasSubstr("<|im_start|>")));
}

TEST(ChatTemplate, TextThatCannotBeEncoded_NamesTheMessageAndLeavesTheIds) {
  const CheckpointDir dir;
  SentencePieceWriter writer;
  writer.Usual();
  for (const char* marker : {"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"})
    writer.Piece(marker, 0, SentencePieceWriter::kControl);
  dir.Write("tokenizer.model", std::string_view(writer.Model()));
  const auto tokenizer = Tokenizer::Load(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto chat_template = ChatTemplate::ByName("demo", **tokenizer);
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  std::vector<int32_t> ids = {5};
  const std::vector<ChatMessage> messages = {{"user", "ok"}, {"user", "\xFF"}};
  const absl::Status status = chat_template->Render(messages, true, **tokenizer, &ids);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("messages[1].content"));
  EXPECT_THAT(ids, ElementsAre(5));
}

TEST(ChatTemplate, CheckpointNamesItsTemplate) {
  const CheckpointDir dir;
  const auto demo = BytesAnd(kDemo);
  const auto chatml = BytesAnd(kChatMl);
  const absl::Status none = ChatTemplate::ForCheckpoint(dir.path(), *demo).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(none.message(), HasSubstr("--chat-template"));
  dir.Write("tokenizer_config.json", json{{"statehouse_chat_template", "demo"}});
  EXPECT_EQ(ChatTemplate::ForCheckpoint(dir.path(), *demo)->name(), "demo");
  dir.Write("tokenizer_config.json",
            json{{"chat_template", "{% for m in messages %}<|im_start|>{{ m.role }}…<|im_end|>{% endfor %}"}});
  EXPECT_EQ(ChatTemplate::ForCheckpoint(dir.path(), *chatml)->name(), "chatml");
  dir.Write("tokenizer_config.json", json{{"chat_template", "[INST]"}});
  EXPECT_EQ(ChatTemplate::ForCheckpoint(dir.path(), *chatml).status().code(), absl::StatusCode::kNotFound);
  dir.Write("tokenizer_config.json", json{{"statehouse_chat_template", 1}});
  EXPECT_EQ(ChatTemplate::ForCheckpoint(dir.path(), *demo).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(FillInTheMiddle, BothSpellings_RenderPrefixThenSuffix) {
  for (const bool bars : {false, true}) {
    const std::string open = bars ? "<|fim_" : "<fim_";
    const std::string close = bars ? "|>" : ">";
    const auto tokenizer = BytesAnd({open + "prefix" + close, open + "middle" + close, open + "suffix" + close});
    const auto fim = FillInTheMiddle::For(*tokenizer);
    ASSERT_TRUE(fim.ok()) << fim.status();
    std::vector<int32_t> ids;
    ASSERT_TRUE(fim->Render("ab", "c", *tokenizer, &ids).ok());
    EXPECT_THAT(ids, ElementsAre(256, 'a', 'b', 258, 'c', 257));
    ids.clear();
    ASSERT_TRUE(fim->Render(std::vector<int32_t>{7, 8}, "", *tokenizer, &ids).ok());
    EXPECT_THAT(ids, ElementsAre(256, 7, 8, 258, 257));
  }
}

TEST(FillInTheMiddle, TokensThatAreMissing_AreNamed) {
  const absl::Status all = FillInTheMiddle::For(*BytesAnd({})).status();
  EXPECT_EQ(all.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(all.message(), HasSubstr("<fim_prefix>, <fim_suffix>, <fim_middle>"));
  const absl::Status one = FillInTheMiddle::For(*BytesAnd({"<|fim_prefix|>", "<|fim_suffix|>"})).status();
  EXPECT_EQ(one.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(one.message()), testing::EndsWith("does not have: <|fim_middle|>"));
}

}  // namespace
}  // namespace statehouse
