#include "clients/cli/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace statehouse::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(ParseConfig, SectionsAndEveryKindOfValue_AreRead) {
  const auto entries = ParseConfig(
      "# a comment\n"
      "address = \"127.0.0.1:1\"  # another\n"
      "tls=true\r\n"
      "\n"
      "[chat]\n"
      "temperature = 0.7\n"
      "system = \"say \\\"#1\\\"\\nplease\"\n"
      "[bench.load]\n"
      "goodput = [\"ttft:200\", 'tpot:50']\n"
      "token-ids = []\n"
      "shift = -3\n");
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 7u);
  EXPECT_EQ((*entries)[0].key, "address");
  EXPECT_THAT((*entries)[0].values, ElementsAre("127.0.0.1:1"));
  EXPECT_THAT((*entries)[1].values, ElementsAre("true"));
  EXPECT_EQ((*entries)[2].section, "chat");
  EXPECT_THAT((*entries)[2].values, ElementsAre("0.7"));
  EXPECT_THAT((*entries)[3].values, ElementsAre("say \"#1\"\nplease"));
  EXPECT_EQ((*entries)[4].section, "bench.load");
  EXPECT_THAT((*entries)[4].values, ElementsAre("ttft:200", "tpot:50"));
  EXPECT_THAT((*entries)[5].values, IsEmpty());
  EXPECT_THAT((*entries)[6].values, ElementsAre("-3"));
  EXPECT_EQ((*entries)[6].line, 11);
}

TEST(ParseConfig, ArraysOverSeveralLinesDottedKeysAndSeparators_AreRead) {
  const auto entries = ParseConfig(
      "bench.load.goodput = [\n  \"ttft:200\",  # first\n\n  'tpot:50',\n]\n"
      "[bench]\n"
      "load.num-prompts = 1_000\n"
      "x = inf\n");
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 3u);
  EXPECT_EQ((*entries)[0].section, "bench.load");
  EXPECT_EQ((*entries)[0].key, "goodput");
  EXPECT_EQ((*entries)[0].line, 1);
  EXPECT_THAT((*entries)[0].values, ElementsAre("ttft:200", "tpot:50"));
  EXPECT_EQ((*entries)[1].section, "bench.load");
  EXPECT_EQ((*entries)[1].key, "num-prompts");
  EXPECT_EQ((*entries)[1].line, 7);
  EXPECT_THAT((*entries)[1].values, ElementsAre("1000"));
  EXPECT_THAT((*entries)[2].values, ElementsAre("inf"));
}

TEST(ParseConfig, KeySetTwiceInASection_IsRefusedWithBothLines) {
  for (const char* text : {"a = 1\n\na = 2\n", "[x]\na = 1\na = 2\n", "x.a = 1\n[x]\na = 2\n"}) {
    const auto entries = ParseConfig(text);
    ASSERT_FALSE(entries.ok()) << text;
    EXPECT_THAT(std::string(entries.status().message()),
                testing::MatchesRegex("line 3: a is set in line [12] already"));
  }
  EXPECT_TRUE(ParseConfig("a = 1\n[x]\na = 2\n[y]\na = 3\n").ok());
}

TEST(ParseConfig, WrongLine_IsNamedWithWhatWasExpected) {
  for (const auto& [text, expected] : {std::pair{"a = 1\nb 2\n", "line 2: expected ="},
                                       {"[chat\n", "line 1: expected ]"},
                                       {"a = word\n", "a \"string\", a number, true or false"},
                                       {"a = \"x\n", "a closing \""},
                                       {"a = [1, 2\n", "line 2: expected , or ]"},
                                       {"a = [1 2]\n", ", or ]"},
                                       {"a = [1,, 2]\n", "a \"string\", a number"},
                                       {"a = 'x\nb = 'y'\n", "line 1: expected a closing '"},
                                       {"a = 1 2\n", "the end of the line"},
                                       {"a = \"\\q\"\n", "one of \\n"},
                                       {"= 1\n", "a key"},
                                       {"a. = 1\n", "a key"},
                                       {"[]\n", "a section's name"}}) {
    const auto entries = ParseConfig(text);
    ASSERT_FALSE(entries.ok()) << text;
    EXPECT_THAT(std::string(entries.status().message()), HasSubstr(expected)) << text;
  }
}

TEST(DefaultConfigFile, OwnFile_IsPreferred) {
  const std::filesystem::path home = testing::TempDir() + "/config_home";
  std::filesystem::create_directories(home / "statehouse");
  setenv("XDG_CONFIG_HOME", home.c_str(), 1);
  std::filesystem::remove(home / "statehouse" / "config.toml");
  EXPECT_NE(DefaultConfigFile(), home / "statehouse" / "config.toml");
  std::ofstream(home / "statehouse" / "config.toml") << "\n";
  EXPECT_EQ(DefaultConfigFile(), home / "statehouse" / "config.toml");
  unsetenv("XDG_CONFIG_HOME");
}

}  // namespace
}  // namespace statehouse::cli
