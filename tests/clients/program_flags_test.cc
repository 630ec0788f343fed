// Flags of the one binary that would change without a word what is asked for, and are refused or explained instead.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/clients/fake_server.h"
#include "tests/clients/program_runner.h"
#include "tests/support/golden.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

const char kDemo[] = STATEHOUSE_SOURCE_DIR "/models/demo/checkpoint";

// What `words` say on standard error when they are refused.
std::string Refusal(const std::vector<std::string>& words, const std::vector<std::string>& environment = {}) {
  const ProgramResult result = RunProgram(words, "", environment);
  EXPECT_EQ(result.status, 2) << ::testing::PrintToString(words) << result.err;
  return result.err;
}

TEST(ProgramFlags, NumbersOfEveryCommand_AreRefusedAlike) {
  const std::vector<std::vector<std::string>> kCases = {
      {"chat", "--seed", ""},
      {"generate", "x", "--logprobs", "99999999999"},
      {"generate", "--prompt-ids", ""},
      {"detokenize", ""},
      {"sessions", "create", "a", "--ttl", "0"},
      {"sessions", "rewind", "a", "--turns", "0"},
      {"sessions", "rewind", "a", "--to", "-1"},
      {"sessions", "fork", "a", "b", "--at", "-1"},
      {"sessions", "ls", "--limit", "-1"},
      {"sessions", "show", "a", "--from", ""},
      {"sessions", "export", "a", "f", "--compression", "20"},
      {"bench", "--model", kDemo, "--max-seconds", "nan"},
      {"bench", "--model", kDemo, "--max-seconds", "-1"},
      {"bench", "--model", kDemo, "--context", "1,,2"},
      {"bench", "load", "--num-prompts", "0"},
      {"bench", "load", "--random-seed", "-1"},
      {"bench", "sessions", "--model", kDemo, "--cache-states", "2"},
      {"bench", "kernels", "fwd", "--heads", "0"},
      {"bench", "kernels", "fwd", "--runs", ""},
      {"bench", "kernels", "fwx"},
      {"info", kDemo, "--memory", "parsecs"},
      {"info", kDemo, "--memory", ""},
      {"serve", "--model", kDemo, "--port", "65536"},
      {"serve", "--model", kDemo, "--gpu-memory-utilization", "nan"},
      {"serve", "--model", kDemo, "--state-memory", "8XiB"},
      {"serve", "--model", kDemo, "--keepalive-time", ""},
      {"serve", "--model", kDemo, "--switch-over", "99999999999999999999"},
      {"serve", "--model", kDemo, "--device", "tpu"},
      {"serve", "--model", kDemo, "--auth-tokens-file", ""},
      {"serve", "--model", kDemo, "--session-dir", ""},
      {"serve", "--model", kDemo, "--session-dir", "/etc/passwd"},
      {"serve", "--model", kDemo, "--session-store", "/etc/passwd"}};
  for (const std::vector<std::string>& words : kCases) {
    const std::string error = Refusal(words);
    EXPECT_THAT(error, HasSubstr("\"" + words.back() + "\"")) << ::testing::PrintToString(words);
    EXPECT_THAT(error, HasSubstr("\" is not allowed; expected ")) << ::testing::PrintToString(words);
    EXPECT_LT(error.size(), 300u) << error;
    const std::string& flag = words[words.size() - 2];
    if (flag.rfind("--", 0) == 0) {
      EXPECT_THAT(error, HasSubstr(flag + ": "));
    }
  }
}

TEST(ProgramFlags, PortThatKubernetesSets_IsRefusedWithTheVariablesName) {
  EXPECT_THAT(Refusal({"serve", "--model", kDemo}, {"STATEHOUSE_PORT=tcp://10.0.0.1:50051"}),
              HasSubstr("(set by the environment variable STATEHOUSE_PORT)"));
}

TEST(ProgramFlags, EmptySession_IsRefused) {
  for (const char* command : {"chat", "generate"}) {
    EXPECT_THAT(Refusal({command, "--session", ""}), HasSubstr("--session: \"\" is not allowed; expected NAME"));
  }
}

TEST(ProgramFlags, ModelWithoutOffline_IsRefusedAndNothingIsAsked) {
  FakeServer server;
  const ProgramResult result = RunProgram({"generate", "--model", kDemo, "x", "--address", server.address()});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("--model is about a model in this process: add --offline"));
  EXPECT_THAT(server.requests(), IsEmpty());
  const ProgramResult shared =
      RunProgram({"generate", "x", "--address", server.address()}, "", {std::string("STATEHOUSE_MODEL=") + kDemo});
  EXPECT_EQ(shared.status, 0) << shared.err << " the variable may be another command's";
}

TEST(ProgramFlags, AnswerOfAModelWithoutATokenizer_IsExplained) {
  const auto cases = testing::FindGoldenCases(testing::GoldenKind::kModel);
  ASSERT_TRUE(cases.ok() && !cases->empty()) << cases.status();
  const ProgramResult result = RunProgram({"generate", "--offline", "--model", cases->front().string(), "--prompt-ids",
                                           "1,2,3", "--ignore-eos", "--max-tokens", "4"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_THAT(result.err, HasSubstr("the answer holds 4 tokens and no text: the model has no tokenizer"));
  EXPECT_THAT(result.err, HasSubstr("--json shows their ids"));
}

TEST(ProgramFlags, LoadsOwnLengths_HaveNoSecondFlag) {
  EXPECT_THAT(Refusal({"bench", "load", "--max-tokens", "100"}), HasSubstr("there is no flag --max-tokens"));
  EXPECT_THAT(Refusal({"bench", "load", "--ignore-eos"}), HasSubstr("there is no flag --ignore-eos"));
}

TEST(ProgramFlags, FailedTurn_SaysWhatTheSessionKeeps) {
  FakeServer server;
  v1::SessionOutcome outcome;
  outcome.set_position_before(7);
  outcome.set_position(7);
  server.set_failed_outcome(outcome);
  server.set_status({grpc::StatusCode::RESOURCE_EXHAUSTED, "too much"});
  const ProgramResult result = RunProgram({"generate", "--address", server.address(), "--session", "ada", "x"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("the session ada keeps nothing of this turn; it holds 7 tokens, as before"));
}

TEST(ProgramFlags, Completion_KnowsNegationsAndThePassesOfTheKernels) {
  const ProgramResult result = RunProgram({"completion", "bash"});
  EXPECT_THAT(result.out, HasSubstr("--no-enable-prefix-caching"));
  EXPECT_THAT(result.out, HasSubstr("fwd bwd fwd+bwd decode"));
  EXPECT_THAT(result.out, HasSubstr("\"bench kernels|--kernel-dtype\") COMPREPLY=($(compgen -W \"auto bf16"));
  EXPECT_THAT(RunProgram({"serve", "--help"}).out, HasSubstr("off: --no-enable-prefix-caching"));
}

}  // namespace
}  // namespace statehouse
