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

TEST(ParseConfig, WrongLine_IsNamedWithWhatWasExpected) {
  for (const auto& [text, expected] : {std::pair{"a = 1\nb 2\n", "line 2: expected ="},
                                       {"[chat\n", "line 1: expected ]"},
                                       {"a = word\n", "a \"string\", a number, true or false"},
                                       {"a = \"x\n", "a closing \""},
                                       {"a = [1, 2\n", ", or ]"},
                                       {"a = 1 2\n", "the end of the line"},
                                       {"a = \"\\q\"\n", "one of \\n"},
                                       {"= 1\n", "a key"},
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
