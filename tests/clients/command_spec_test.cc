// Help, completion scripts and suggestions, from a small tree of commands.
#include "clients/cli/command_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace statehouse::cli {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

CommandSpec SmallTree() {
  FlagSpec config{
      .name = "--config", .value = "FILE", .help = "Where defaults stand", .group = "Everywhere", .takes_path = true};
  FlagSpec dtype{.name = "--dtype",
                 .short_name = "-d",
                 .value = "TEXT",
                 .choices = {"f32", "bf16"},
                 .help = "Type [of] weights: it's",
                 .group = "Model",
                 .env = "STATEHOUSE_DTYPE",
                 .config_key = "dtype"};
  FlagSpec count{.name = "--count",
                 .value = "INT",
                 .help = "How many",
                 .group = "Model",
                 .default_value = "7",
                 .env = "STATEHOUSE_COUNT",
                 .config_key = "count"};
  FlagSpec dir{.name = "DIR",
               .value = "DIR",
               .help = "The checkpoint",
               .positional = true,
               .required = true,
               .takes_path = true};
  CommandSpec load{.name = "load", .help = "Load it. Hard.", .flags = {count}};
  CommandSpec bench{.name = "bench", .help = "Measure.", .flags = {dtype}, .commands = {load}};
  CommandSpec info{.name = "info", .help = "Look at one.", .footer = "Examples:\n  tool info .", .flags = {dir, count}};
  return {.name = "tool", .help = "A tool.", .runs = false, .flags = {config}, .commands = {bench, info}};
}

TEST(Nearest, SlipsOfTheHand_FindTheWordThatWasMeant) {
  const std::vector<std::string> commands = {"serve", "chat", "generate", "status", "tokenize"};
  EXPECT_EQ(Nearest("sevre", commands), "serve");
  EXPECT_EQ(Nearest("chta", commands), "chat");
  EXPECT_EQ(Nearest("gen", commands), "generate");
  EXPECT_EQ(Nearest("tokenise", commands), "tokenize");
  EXPECT_EQ(Nearest("statsu", commands), "status");
}

TEST(Nearest, AnotherWordAltogether_FindsNothing) {
  EXPECT_EQ(Nearest("xyzzy", {"serve", "chat"}), "");
  EXPECT_EQ(Nearest("--frobnicate", {"--top-k", "--seed"}), "");
}

TEST(EnvNameOf, FlagWithDashes_IsUpperCaseWithUnderscores) {
  EXPECT_EQ(EnvNameOf("--max-num-seqs"), "STATEHOUSE_MAX_NUM_SEQS");
}

TEST(HelpText, OfTheProgram_ListsCommandsWithTheirFirstSentence) {
  const std::string help = HelpText(SmallTree(), {});
  EXPECT_THAT(help, HasSubstr("Usage: tool COMMAND [FLAGS]"));
  EXPECT_THAT(help, HasSubstr("bench                           Measure\n"));
  EXPECT_THAT(help, HasSubstr("--config FILE"));
}

TEST(HelpText, OfACommand_ShowsArgumentFlagDefaultEnvironmentAndExamples) {
  const std::string help = HelpText(SmallTree(), {"info"});
  EXPECT_THAT(help, HasSubstr("Usage: tool info DIR [FLAGS]"));
  EXPECT_THAT(help, HasSubstr("How many [default 7; STATEHOUSE_COUNT]"));
  EXPECT_THAT(help, HasSubstr("tool info ."));
  EXPECT_THAT(HelpText(SmallTree(), {"bench"}), HasSubstr("f32|bf16; STATEHOUSE_DTYPE"));
  EXPECT_THAT(HelpText(SmallTree(), {"bench", "load"}), HasSubstr("in [bench.load]"));
}

TEST(HelpText, LongText_IsBrokenAt110Columns) {
  CommandSpec tree = SmallTree();
  for (int i = 0; i < 40; ++i) tree.commands[1].flags[1].help += " …wörds";
  const std::string help = HelpText(tree, {"info"});
  size_t columns = 0;
  for (char c : help) {
    columns = c == '\n' ? 0 : columns + ((c & 0xC0) != 0x80 ? 1 : 0);
    ASSERT_LE(columns, 110u);
  }
}

// What bash would offer for the words of a command line, the last of which is being typed.
std::string Complete(const std::string& script, const std::string& words, int current) {
  const std::string file = testing::TempDir() + "/completion.bash";
  std::ofstream(file) << script << "COMP_WORDS=(" << words << ")\nCOMP_CWORD=" << current
                      << "\n_tool\necho \"${COMPREPLY[@]}\"\n";
  std::FILE* pipe = popen(("bash " + file + " 2>&1").c_str(), "r");
  std::string output;
  std::array<char, 256> chunk;
  while (std::fgets(chunk.data(), chunk.size(), pipe) != nullptr) output += chunk.data();
  pclose(pipe);
  return output;
}

TEST(CompletionScript, InBash_OffersCommandsFlagsAndValues) {
  const std::string script = CompletionScript(SmallTree(), "bash");
  EXPECT_EQ(Complete(script, "tool b", 1), "bench\n");
  EXPECT_EQ(Complete(script, "tool bench --dtype ''", 3), "f32 bf16\n");
  EXPECT_EQ(Complete(script, "tool bench --dtype f32 l", 4), "load\n");
  EXPECT_EQ(Complete(script, "tool bench load --c", 3), "--count --config\n");
  EXPECT_EQ(Complete(script, "tool info --co", 2), "--count --config\n");
}

TEST(CompletionScript, ForEveryShell_NamesEveryCommandAndFlag) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = CompletionScript(SmallTree(), shell);
    for (const char* word : {"bench", "load", "info", "dtype", "count", "config", "bf16"})
      EXPECT_THAT(script, HasSubstr(word)) << shell;
  }
  EXPECT_THAT(CompletionScript(SmallTree(), "tcsh"), IsEmpty());
}

TEST(CompletionScript, ScriptsOfInstalledShells_HaveNoSyntaxError) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string name = shell;
    if (std::system(("command -v " + name + " >/dev/null").c_str()) != 0) continue;
    const std::string file = testing::TempDir() + "/completion." + name;
    std::ofstream(file) << CompletionScript(SmallTree(), name);
    EXPECT_EQ(std::system((name + " -n " + file).c_str()), 0) << name;
  }
}

}  // namespace
}  // namespace statehouse::cli
