// How sessions are shown.
#include "clients/cli/session_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "clients/cli/table.h"

namespace statehouse::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

TEST(Table, ColumnsLineUpByCharacters) {
  Table table({{"NAME"}, {"N", Align::kRight}, {"WHERE"}});
  table.Add({"zoë", "7", "here"});
  table.Add({"a", "1234", ""});
  EXPECT_EQ(table.Text(),
            "NAME     N  WHERE\n"
            "zoë      7  here\n"
            "a     1234\n");
}

TEST(Table, ControlCharacters_CannotSteerTheTerminal) {
  Table table({{"NAME"}});
  table.Add({"a\033[2Jb\nc"});
  EXPECT_EQ(table.Text(), "NAME\na\uFFFD[2Jb c\n");
}

TEST(SessionView, Ago_CountsInTheLargestUnit) {
  EXPECT_EQ(Ago(0, 100), "never");
  EXPECT_EQ(Ago(90, 100), "10 s ago");
  EXPECT_EQ(Ago(200, 100), "0 s ago") << "clocks differ";
  EXPECT_EQ(Ago(1000, 1000 + 3 * 60 + 5), "3 min ago");
  EXPECT_EQ(Ago(1000, 1000 + 26 * 3600), "1 d ago");
}

v1::Session Ada() {
  v1::Session session;
  session.set_id("0123456789abcdef0123456789abcdef");
  session.set_name("ada");
  session.set_position(312);
  session.set_turns(5);
  session.set_durability(v1::DURABILITY_SYNC);
  session.set_pinned(true);
  session.set_last_turn(1000);
  session.set_snapshot_bytes(2'400'000);
  v1::SessionCheckpoint* checkpoint = session.add_checkpoints();
  checkpoint->set_position(311);
  checkpoint->set_bytes(1'200'000);
  checkpoint->set_tier(v1::CACHE_TIER_DISK);
  return session;
}

TEST(SessionView, TableAndPageAndJson_SayTheSame) {
  v1::Session nameless = Ada();
  nameless.clear_name();
  const std::string table = SessionTable({Ada(), nameless}, 1060);
  EXPECT_THAT(table, HasSubstr("ada "));
  EXPECT_THAT(table, HasSubstr("0123456789abcdef0123456789abcdef"));
  EXPECT_THAT(table, HasSubstr("1 min ago"));
  EXPECT_THAT(table, HasSubstr("pinned"));
  EXPECT_THAT(table, HasSubstr("2.40 MB"));
  const std::string page = SessionText(Ada(), 1060);
  EXPECT_THAT(page, HasSubstr("312 tokens in 5 turns"));
  EXPECT_THAT(page, HasSubstr("1.20 MB  disk"));
  const auto json = SessionJson(Ada());
  EXPECT_EQ(json["position"], 312);
  EXPECT_EQ(json["checkpoints"][0]["tier"], "disk");
  EXPECT_EQ(json["snapshot_bytes"], 2'400'000);
  EXPECT_TRUE(json["lease_owner"].is_null());
}

TEST(SessionView, DamagedSession_SaysSoEverywhere) {
  v1::Session damaged = Ada();
  damaged.set_damage("record 3: checksum");
  EXPECT_THAT(SessionTable({damaged}, 1060), HasSubstr("damaged, pinned"));
  EXPECT_THAT(SessionText(damaged, 1060), HasSubstr("record 3: checksum"));
  EXPECT_EQ(SessionJson(damaged)["damage"], "record 3: checksum");
  EXPECT_TRUE(SessionJson(Ada())["damage"].is_null());
  EXPECT_THAT(SessionText(Ada(), 1060), testing::Not(HasSubstr("damaged")));
}

std::vector<std::pair<std::string, std::string>> Split(std::string_view text, std::string_view chat_template) {
  std::vector<std::pair<std::string, std::string>> messages;
  for (const auto& message : SplitTranscript(text, chat_template)) messages.emplace_back(message.role, message.text);
  return messages;
}

TEST(SplitTranscript, EachTemplate_GivesTheMessages) {
  EXPECT_THAT(Split("<s><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello<|end|>", "demo"),
              ElementsAre(Pair("system", "Be brief."), Pair("user", "Hi"), Pair("assistant", "Hello")));
  EXPECT_THAT(Split("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHel", "chatml"),
              ElementsAre(Pair("user", "Hi"), Pair("assistant", "Hel")));
  EXPECT_THAT(Split("User: Hi\nAssistant: Hello\nUser:", "plain"),
              ElementsAre(Pair("user", "Hi"), Pair("assistant", "Hello"), Pair("user", "")));
  EXPECT_THAT(Split("rest of it<|end|><|user|>Hi<|end|>", "demo"),
              ElementsAre(Pair("", "rest of it"), Pair("user", "Hi")));
  EXPECT_THAT(Split("any text", "unknown"), ElementsAre(Pair("", "any text")));
}

}  // namespace
}  // namespace statehouse::cli
