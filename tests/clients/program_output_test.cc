// The program where its surroundings fail it: an output that takes no bytes, streams that are closed, files that cannot
// be read or written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/clients/fake_server.h"
#include "tests/clients/program_runner.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Words = std::vector<std::string>;

const char kDemo[] = STATEHOUSE_SOURCE_DIR "/models/demo/checkpoint";

class ProgramOutput : public ::testing::Test {
 protected:
  // With the server's address behind the words.
  ProgramResult Ask(Words words, const std::string& redirections, const std::string& input = "x\n") {
    words.insert(words.end(), {"--address", server_.address()});
    return RunProgram(words, input, {}, redirections);
  }

  FakeServer server_;
};

TEST_F(ProgramOutput, OutputThatIsLost_IsNeverASuccess) {
  const auto check = [](const ProgramResult& result, const Words& words) {
    EXPECT_EQ(result.status, 1) << ::testing::PrintToString(words);
    EXPECT_THAT(result.err, HasSubstr("statehouse: standard output: No space left on device"))
        << ::testing::PrintToString(words);
  };
  for (const Words& words : std::vector<Words>{{"status"},
                                               {"models", "--json"},
                                               {"tokenize", "a"},
                                               {"detokenize", "97"},
                                               {"health"},
                                               {"generate", "x"},
                                               {"generate", "x", "--json"},
                                               {"chat"}}) {
    check(Ask(words, ">/dev/full"), words);
  }
  for (const Words& words :
       std::vector<Words>{{"info", kDemo}, {"completion", "bash"}, {"--help"}, {"chat", "--help"}, {"--version"}}) {
    check(RunProgram(words, "", {}, ">/dev/full"), words);
  }
}

TEST_F(ProgramOutput, AReaderThatLeaves_IsNoError) {
  // It has left before anything is written.
  for (const std::string& words : Words{"completion bash", "--help", "generate x --address " + server_.address()}) {
    const std::string command =
        "bash -c '(sleep 0.2; exec " + ProgramPath() + " " + words + ") | true; exit ${PIPESTATUS[0]}' 2>&1";
    std::FILE* const shell = popen(command.c_str(), "r");
    ASSERT_NE(shell, nullptr);
    char said[200] = "";
    EXPECT_EQ(std::fgets(said, sizeof said, shell), nullptr) << words << ": " << said;
    EXPECT_EQ(pclose(shell), 0) << words;
  }
}

TEST_F(ProgramOutput, ClosedStreams_AreNotTakenForOthers) {
  const ProgramResult chat = Ask({"chat"}, "<&-");
  EXPECT_EQ(chat.status, 0) << chat.err;
  EXPECT_THAT(Ask({"generate"}, "<&-").err, HasSubstr("the prompt is empty"));
  EXPECT_EQ(Ask({"status"}, "2>&-").status, 0);
  const ProgramResult lost = Ask({"status"}, ">&-");
  EXPECT_EQ(lost.status, 1);
  EXPECT_THAT(lost.err, HasSubstr("standard output: Bad file descriptor"));
}

TEST_F(ProgramOutput, NoServer_IsSaidInOneLine) {
  const ProgramResult result = RunProgram({"status", "--address", "127.0.0.1:1"});
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
}

TEST_F(ProgramOutput, WordsBehindTwoDashes_AreNotTakenForFlags) {
  const ProgramResult result = RunProgram({"generate", "--", "-x", "-m", "2"});
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, HasSubstr("\"-m\" is one argument too many"));
}

TEST_F(ProgramOutput, APromptWithoutEndOrAFolder_IsRefusedByName) {
  const ProgramResult endless = Ask({"generate", "--file", "/dev/zero"}, "");
  EXPECT_EQ(endless.status, 1);
  EXPECT_THAT(endless.err, HasSubstr("--file: /dev/zero is too large"));
  EXPECT_THAT(Ask({"generate", "--file", "/etc"}, "").err, HasSubstr("--file: /etc is a folder"));
  EXPECT_THAT(Ask({"tokenize", "-"}, "</dev/zero").err, HasSubstr("standard input is too large"));
}

TEST_F(ProgramOutput, AReportThatCannotBeWritten_IsSaidBeforeTheMeasurement) {
  const ProgramResult load = Ask({"bench", "load", "--num-prompts", "1", "--json", "/nonexistent/x"}, "");
  EXPECT_EQ(load.status, 1);
  EXPECT_THAT(load.err, HasSubstr("--json: cannot write /nonexistent/x"));
  EXPECT_TRUE(server_.requests().empty());
  for (const Words& words : std::vector<Words>{{"bench", "--model", kDemo, "--quick", "--plot", "/nonexistent/x"},
                                               {"bench", "sessions", "--model", kDemo, "--plot", "/nonexistent/x"},
                                               {"bench", "kernels", "fwd", "--csv", "/nonexistent/x"},
                                               {"bench", "kernels", "fwd", "--json", "/"}}) {
    const ProgramResult result = RunProgram(words);
    EXPECT_EQ(result.status, 1) << ::testing::PrintToString(words);
    EXPECT_THAT(result.err, HasSubstr(": cannot write /")) << ::testing::PrintToString(words);
    EXPECT_THAT(result.out, IsEmpty()) << ::testing::PrintToString(words);
  }
}

}  // namespace
}  // namespace statehouse
