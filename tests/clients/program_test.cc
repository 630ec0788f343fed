// The one binary from outside: every command's help, in-process commands on the demo checkpoint, and client commands
// against a server without a model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/clients/fake_server.h"
#include "tests/clients/program_runner.h"
#include "tests/support/golden.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

const char kDemo[] = STATEHOUSE_SOURCE_DIR "/models/demo/checkpoint";

// The names under "Commands:" of a help text.
std::vector<std::string> CommandsIn(const std::string& help) {
  std::vector<std::string> commands;
  std::istringstream lines(help);
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line == "Commands:") {
      inside = true;
    } else if (inside && line.rfind("  ", 0) == 0 && line[2] != ' ') {
      commands.push_back(line.substr(2, line.find(' ', 2) - 2));
    } else if (inside && line.empty()) {
      break;
    }
  }
  return commands;
}

// Each flag's entry in a help text, from its name to the next one's.
std::map<std::string, std::string> FlagsIn(const std::string& help) {
  std::map<std::string, std::string> flags;
  std::istringstream lines(help.substr(0, help.find("\nEverywhere:")));
  std::string current;
  for (std::string line; std::getline(lines, line);) {
    const bool is_flag = line.size() > 6 && line.rfind("  ", 0) == 0 && line.substr(6, 2) == "--";
    if (is_flag) current = line.substr(6, line.find(' ', 6) - 6);
    if (line.empty()) current.clear();
    if (!current.empty()) flags[current] += line + " ";
  }
  return flags;
}

// By variable: what it takes, and which commands say so.
using Meanings = std::map<std::string, std::map<std::string, std::string>>;

void CheckHelp(const std::vector<std::string>& path, std::set<std::string>* seen, Meanings* meanings) {
  std::vector<std::string> words = path;
  words.emplace_back("--help");
  const ProgramResult result = RunProgram(words);
  const std::string name = ::testing::PrintToString(path);
  ASSERT_EQ(result.status, 0) << name << result.err;
  EXPECT_THAT(result.out, HasSubstr("Usage: statehouse")) << name;
  for (const auto& [flag, entry] : FlagsIn(result.out)) {
    std::string env = "STATEHOUSE_";
    for (char c : flag.substr(2)) env += c == '-' ? '_' : static_cast<char>(std::toupper(c));
    if (flag == "--json" && !path.empty() && path.front() == "bench") env = "STATEHOUSE_BENCH_JSON";
    if (flag == "--cache-salt" && !path.empty() && path.front() != "serve") env = "STATEHOUSE_REQUEST_CACHE_SALT";
    EXPECT_THAT(entry, HasSubstr(env + "]")) << name << " " << flag;
    // What stands behind the flag is what it takes; the text says what for.
    const size_t value = entry.find(flag) + flag.size() + 1;
    const std::string takes = entry.substr(value, entry.find(' ', value) - value);
    (*meanings)[env][takes] += name + " ";
    EXPECT_GT(entry.size(), flag.size() + env.size() + 12) << name << " " << flag << " has no help text";
  }
  if (!path.empty()) {
    EXPECT_THAT(result.out, HasSubstr("Examples:")) << name;
  }
  for (const std::string& command : CommandsIn(result.out)) {
    std::vector<std::string> inner = path;
    inner.push_back(command);
    seen->insert(command);
    CheckHelp(inner, seen, meanings);
  }
}

TEST(Program, HelpOfEveryCommand_NamesEachFlagsVariableAndHasExamples) {
  std::set<std::string> seen;
  Meanings meanings;
  CheckHelp({}, &seen, &meanings);
  for (const auto& [variable, takes] : meanings) {
    EXPECT_EQ(takes.size(), 1u) << variable << " means different things: " << ::testing::PrintToString(takes);
    // A server's environment, a container's say, must not say how clients in it connect.
    const std::string& commands = takes.begin()->second;
    const bool is_shared = commands.find("\"serve\"") != commands.npos && commands.find("\"health\"") != commands.npos;
    EXPECT_FALSE(is_shared) << variable;
  }
  for (const char* command :
       {"serve", "chat", "generate", "info", "bench", "load", "completion", "status", "models", "health"}) {
    EXPECT_EQ(seen.count(command), 1u) << command;
  }
}

TEST(Program, Version_HasCommitAndBuildType) {
  const ProgramResult result = RunProgram({"--version"});
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.out, ::testing::MatchesRegex("statehouse [0-9.]+ \\([0-9a-f+a-z]+, [A-Za-z+]+, .*\\)\n"));
}

TEST(Program, CompletionInBash_KnowsTheBinarysCommands) {
  const ProgramResult result = RunProgram({"completion", "bash"});
  EXPECT_EQ(result.status, 0);
  for (const char* word : {"serve", "--model", "--offline", "--goodput"}) EXPECT_THAT(result.out, HasSubstr(word));
}

TEST(Program, GenerateJson_HasTheStructureThatIsDocumented) {
  FakeServer server;
  const ProgramResult result = RunProgram({"generate", "--address", server.address(), "--prompt-ids", "7,8", "--json",
                                           "--n", "2", "--logprobs", "1", "--seed", "5", "--request-id", "mine"});
  ASSERT_EQ(result.status, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["prompt_token_ids"], Json({7, 8}));
  EXPECT_EQ(json["seed"], 5);
  ASSERT_EQ(json["outputs"].size(), 2u);
  const Json& output = json["outputs"][1];
  EXPECT_EQ(output["token_ids"], Json({103, 104, 105}));
  EXPECT_EQ(output["text"], "Hello there .");
  EXPECT_EQ(output["finish_reason"], "stop");
  EXPECT_EQ(output["stop_token_id"], 2);
  EXPECT_EQ(output["logprobs"].size(), 3u);
  EXPECT_EQ(output["logprobs"][0]["top"].size(), 1u);
  EXPECT_EQ(json["usage"]["completion_tokens"], 6);
  EXPECT_EQ(json["timings"]["time_to_first_token"], 0.25);
  EXPECT_THAT(server.request_ids(), ::testing::ElementsAre("mine"));
}

TEST(Program, GenerateFromStandardInput_StreamsPlainText) {
  FakeServer server;
  const ProgramResult result = RunProgram({"generate", "--address", server.address()}, "Once upon a time");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, "Hello there .");
  EXPECT_EQ(server.requests().at(0).text(), "Once upon a time");
}

TEST(Program, GenerateWithTwoPrompts_IsRefused) {
  const ProgramResult result = RunProgram({"generate", "text", "--prompt-ids", "1"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("give the prompt once"));
}

TEST(Program, ServerNotRunning_SaysHowToStartOne) {
  const ProgramResult result = RunProgram({"status", "--address", "127.0.0.1:1"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("statehouse: no server answers at 127.0.0.1:1"));
  EXPECT_THAT(result.err, HasSubstr("statehouse serve --model DIR"));
  EXPECT_THAT(result.err, Not(HasSubstr("\033")));
}

TEST(Program, AddressOfTheEnvironment_ReachesTheServer) {
  FakeServer server("unix:" + ::testing::TempDir() + "/program_test.sock");
  const ProgramResult result = RunProgram({"status", "--json"}, "", {"STATEHOUSE_ADDRESS=" + server.address()});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(Json::parse(result.out)["slots"]["total"], 16);
}

TEST(Program, SmallCommands_AskTheServer) {
  FakeServer server;
  const std::string at = server.address();
  EXPECT_THAT(RunProgram({"models", "--address", at}).out, HasSubstr("2.10 MB per sequence, however long"));
  EXPECT_EQ(RunProgram({"tokenize", "--address", at, "ab"}).out, "1,97,98\n");
  EXPECT_EQ(RunProgram({"tokenize", "--address", at, "ab", "--no-special-tokens"}).out, "97,98\n");
  EXPECT_EQ(RunProgram({"detokenize", "--address", at, "97,98"}).out, "ab\n");
  EXPECT_EQ(RunProgram({"cancel", "--address", at, "r1"}).out, "cancelled\n");
  EXPECT_THAT(RunProgram({"cancel", "--address", at, "r2"}).err, HasSubstr("no request \"r2\""));
  EXPECT_EQ(RunProgram({"health", "--address", at}).status, 0);
  server.set_health(grpc::health::v1::HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(RunProgram({"health", "--address", at}).status, 1);
}

TEST(Program, UnknownModelName_SaysWhatIsServed) {
  FakeServer server;
  const ProgramResult result = RunProgram({"chat", "--address", server.address(), "--served-model-name", "other"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("this server has \"fake\""));
}

TEST(Program, ChatInAPipe_PrintsAnswersOnly) {
  FakeServer server;
  const ProgramResult result = RunProgram({"chat", "--address", server.address()}, "hi\nagain\n");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, "Hello there .\nHello there .\n");
}

TEST(Program, LoadBenchmark_CountsRequestsAndWritesEveryFigure) {
  FakeServer server;
  const std::string file = ::testing::TempDir() + "/load.json", plot = ::testing::TempDir() + "/load.svg";
  const ProgramResult result =
      RunProgram({"bench", "load", "--address", server.address(), "--num-prompts", "20", "--max-concurrency", "4",
                  "--input-len", "8", "--output-len", "3", "--goodput", "ttft:10000", "--json", file, "--plot", plot});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("Time to first token"));
  std::ifstream stream(file);
  const Json json = Json::parse(stream);
  EXPECT_EQ(json["completed"], 20);
  EXPECT_EQ(json["output_tokens"], 60);
  EXPECT_EQ(json["model"], "fake") << "what the server calls it: the flag is empty";
  EXPECT_EQ(json["ttft_s"]["count"], 20);
  EXPECT_EQ(json["itl_s"]["count"], 40);
  EXPECT_LE(json["peak_concurrency"], 4);
  EXPECT_DOUBLE_EQ(json["floors"]["tpot_p50"]["floor_s"], 0.001) << "7 MB at 7 GB/s";
  EXPECT_EQ(json["floors"]["tpot_p50"]["measured_s"], json["tpot_s"]["p50"]);
  EXPECT_THAT(result.out, HasSubstr("What the server's machine allows"));
  std::ifstream drawing(plot);
  const std::string svg{std::istreambuf_iterator<char>(drawing), {}};
  EXPECT_THAT(svg, HasSubstr("time per output token"));
  EXPECT_THAT(svg, HasSubstr("floor of a step"));
  EXPECT_EQ(server.requests().size(), 21u) << "one to warm up";
  EXPECT_EQ(server.requests()[1].stop().max_tokens(), 3);
  EXPECT_TRUE(server.requests()[1].stop().ignore_eos());
  EXPECT_EQ(server.requests()[1].token_ids().ids_size(), 8);
}

TEST(Program, LoadBenchmarkWithAnImpossibleFlag_NamesItAndTheRange) {
  const ProgramResult result = RunProgram({"bench", "load", "--range-ratio", "1.5"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("--range-ratio: 1.5 is not allowed; expected 0 or more and below 1"));
}

class DemoTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(std::filesystem::exists(kDemo)) << kDemo; }

  static Json Offline(std::vector<std::string> more) {
    std::vector<std::string> words = {"generate", "--offline", "--model", kDemo, "--json", "--max-tokens", "12"};
    words.insert(words.end(), more.begin(), more.end());
    const ProgramResult result = RunProgram(words);
    EXPECT_EQ(result.status, 0) << result.err;
    return Json::parse(result.out, nullptr, false);
  }
};

TEST_F(DemoTest, OfflinePromptIds_GiveTokensTextAndUsage) {
  const Json json = Offline(
      {"--prompt-ids", "5,6,7", "--temperature", "0", "--ignore-eos", "--logprobs", "2", "--prompt-logprobs", "0"});
  EXPECT_EQ(json["prompt_token_ids"], Json({5, 6, 7}));
  ASSERT_EQ(json["outputs"].size(), 1u);
  EXPECT_EQ(json["outputs"][0]["token_ids"].size(), 12u);
  EXPECT_EQ(json["outputs"][0]["finish_reason"], "length");
  ASSERT_EQ(json["outputs"][0]["logprobs"].size(), 12u);
  EXPECT_EQ(json["outputs"][0]["logprobs"][0]["top"].size(), 2u);
  EXPECT_EQ(json["outputs"][0]["logprobs"][0]["token_id"], json["outputs"][0]["logprobs"][0]["top"][0]["token_id"])
      << "greedy";
  EXPECT_EQ(json["prompt_logprobs"].size(), 2u) << "from the second token on";
  EXPECT_EQ(json["usage"]["total_tokens"], 15);
}

// The whole line, from a checkpoint's files to the JSON on standard output.
TEST(Program, GoldenCheckpointsOffline_ContinueGreedilyAsTheReference) {
  const auto cases = testing::FindGoldenCases(testing::GoldenKind::kModel);
  ASSERT_TRUE(cases.ok()) << cases.status();
  for (const std::filesystem::path& dir : *cases) {
    std::ifstream stream(dir / "golden.json");
    const Json file = Json::parse(stream, nullptr, /*allow_exceptions=*/false);
    const Json cases_here = file.is_object() ? file.value("cases", Json::array()) : Json::array();
    EXPECT_FALSE(cases_here.empty()) << dir;
    for (const Json& golden : cases_here) {
      const bool is_whole = golden.is_object() && golden.contains("prompt") && golden.contains("greedy");
      EXPECT_TRUE(is_whole) << dir << ": a case without prompt or greedy";
      if (!is_whole) continue;
      std::string ids;
      for (const Json& id : golden["prompt"]) ids += (ids.empty() ? "" : ",") + id.dump();
      const ProgramResult result =
          RunProgram({"generate", "--offline", "--model", dir.string(), "--prompt-ids", ids, "--temperature", "0",
                      "--ignore-eos", "--max-tokens", std::to_string(golden["greedy"].size()), "--json"});
      EXPECT_EQ(result.status, 0) << dir << " " << result.err;
      if (result.status != 0) continue;
      EXPECT_EQ(Json::parse(result.out)["outputs"][0]["token_ids"], golden["greedy"])
          << dir << ", prompt of " << golden["prompt"].size();
    }
  }
}

TEST_F(DemoTest, SameSeed_SameTokensWhateverTheStepAndTheThreads) {
  const Json one = Offline({"Hello there, how are you?", "--seed", "11", "--temperature", "1"});
  const Json two = Offline({"Hello there, how are you?", "--seed", "11", "--temperature", "1",
                            "--max-num-batched-tokens", "3", "--threads", "1"});
  EXPECT_EQ(one["outputs"], two["outputs"]);
  EXPECT_EQ(one["seed"], 11);
}

TEST_F(DemoTest, SeveralOutputs_ComeWithTheirIndex) {
  const Json json = Offline({"Hello", "--n", "3", "--seed", "1", "--temperature", "1.5", "--ignore-eos"});
  ASSERT_EQ(json["outputs"].size(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(json["outputs"][i]["index"], i);
  EXPECT_NE(json["outputs"][0]["token_ids"], json["outputs"][1]["token_ids"]);
}

TEST_F(DemoTest, OfflineWithAnIdBeyondTheVocabulary_NamesFieldAndRange) {
  const ProgramResult result = RunProgram({"generate", "--offline", "--model", kDemo, "--prompt-ids", "1,99999999"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("token_ids"));
  EXPECT_THAT(result.err, HasSubstr("99999999"));
}

TEST_F(DemoTest, ServeWithAValueThatCannotBe_SaysSoBeforeItListens) {
  for (const auto& [flag, value] : {std::pair{"--max-num-queued-reqs", "0"}, std::pair{"--max-num-seqs", "100000"},
                                    std::pair{"--slow-reader-timeout", "0"}, std::pair{"--chat-template", "nothing"}}) {
    const ProgramResult result =
        RunProgram({"serve", "--model", kDemo, "--port", "0", "--metrics-port", "0", flag, value});
    EXPECT_NE(result.status, 0) << flag;
    EXPECT_THAT(result.err, HasSubstr(flag));
    EXPECT_THAT(result.err, Not(HasSubstr("listening"))) << flag;
  }
}

TEST_F(DemoTest, OfflineWithoutAModel_SaysWhatToAdd) {
  const ProgramResult result = RunProgram({"generate", "--offline", "hi"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("add --model DIR"));
}

TEST_F(DemoTest, Info_SaysWhatASequenceCosts) {
  const ProgramResult text = RunProgram({"info", kDemo});
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("break-even"));
  const ProgramResult result = RunProgram({"info", kDemo, "--json", "--memory", "1GB"});
  ASSERT_EQ(result.status, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["memory_bytes"], 1'000'000'000);
  ASSERT_EQ(json["fits"].size(), 3u);
  for (const Json& fit : json["fits"]) {
    EXPECT_EQ(fit["sequences"].get<int64_t>(),
              (1'000'000'000 - fit["weight_bytes"].get<int64_t>()) / json["slot_bytes"].get<int64_t>());
  }
}

TEST_F(DemoTest, InfoOfNoCheckpoint_NamesTheFile) {
  const ProgramResult result = RunProgram({"info", "/no/such/checkpoint"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("/no/such/checkpoint"));
}

TEST_F(DemoTest, BenchOfTwoContexts_WritesEveryFigureWithItsFloorAndAPlot) {
  const std::string file = ::testing::TempDir() + "/bench.json", plot = ::testing::TempDir() + "/bench.svg";
  const ProgramResult result =
      RunProgram({"bench", "--model",    kDemo, "--context",     "256,512", "--batch",   "1,3", "--step-tokens",
                  "64",    "--min-runs", "3",   "--max-seconds", "0.05",    "--streams", "2",   "--long-prompt",
                  "512",   "--json",     file,  "--plot",        plot});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("streams while a prompt of 512 tokens is prefilled"));
  std::ifstream stream(file);
  const Json json = Json::parse(stream);
  ASSERT_EQ(json["figures"].size(), 6u) << "a prefill and two decodes per context";
  for (const Json& figure : json["figures"]) {
    EXPECT_GE(figure["runs"], 3);
    EXPECT_GT(figure["floor_s"], 0);
    EXPECT_NEAR(figure["share_of_floor"].get<double>(),
                figure["floor_s"].get<double>() / figure["step_median_s"].get<double>(), 1e-9);
    EXPECT_GE(figure["step_median_s"], figure["step_min_s"]);
  }
  EXPECT_EQ(json["memory"][0]["slot_bytes"], json["memory"][1]["slot_bytes"])
      << "memory does not grow with the context";
  EXPECT_GT(json["interference"]["gaps"], 0);
  std::ostringstream svg;
  svg << std::ifstream(plot).rdbuf();
  EXPECT_THAT(svg.str(), ::testing::StartsWith("<svg"));
  EXPECT_THAT(svg.str(), ::testing::EndsWith("</svg>\n"));
}

}  // namespace
}  // namespace statehouse
