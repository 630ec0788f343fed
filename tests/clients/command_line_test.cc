// The client commands as a user types them, and what holds for every flag of the tree.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <fstream>
#include <set>

#include "clients/cli/client_commands.h"
#include "clients/cli/command_tree.h"
#include "clients/cli/request_flags.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse::cli {
namespace {

using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// A program with one command that has the flags of a request, and `bench` with a command under it.
class CommandLineTest : public testing::Test {
 protected:
  CommandLineTest() : root_("A test.", "statehouse") {
    for (const char* name : {"STATEHOUSE_TEMPERATURE", "STATEHOUSE_MAX_TOKENS", "STATEHOUSE_CONFIG", "STATEHOUSE_SEED",
                             "STATEHOUSE_DIR", "STATEHOUSE_IGNORE_EOS", "STATEHOUSE_STOP_TOKEN_IDS"}) {
      unsetenv(name);
    }
    setenv("XDG_CONFIG_HOME", (testing::TempDir() + "/nothing_here").c_str(), 1);
    root_.set_help_flag("--help,-h", "Help");
  }

  void Build() {
    ask_ = root_.add_subcommand("ask", "Ask.");
    AddSamplingFlags(*ask_, &request_);
    AddOutputFlags(*ask_, &request_);
    actions_[ask_] = [this] { return ran_ = 10; };
    CLI::App* bench = root_.add_subcommand("bench", "Measure.");
    bench->add_option("--dir", dir_, "A directory")->check(CLI::ExistingDirectory);
    actions_[bench] = [this] { return ran_ = 20; };
    AddLoadBenchmark(
        *bench, [](const std::vector<PlotArea>&) { return std::string(); }, /*write=*/{}, &actions_);
    actions_[bench->get_subcommand("load")] = [this] { return ran_ = 30; };
    FinishTree(root_, "statehouse 1.2.3", &actions_);
  }

  // Exit status; what was said is in out_ and err_.
  int Run(std::vector<const char*> words) {
    Build();
    words.insert(words.begin(), "statehouse");
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int status = RunCommandLine(root_, actions_, static_cast<int>(words.size()), words.data());
    out_ = testing::internal::GetCapturedStdout();
    err_ = testing::internal::GetCapturedStderr();
    return status;
  }

  std::string WriteConfig(const std::string& text) {
    const std::string file = testing::TempDir() + "/command_line_test.toml";
    std::ofstream(file) << text;
    return file;
  }

  CLI::App root_;
  Actions actions_;
  CLI::App* ask_ = nullptr;
  v1::GenerateRequest request_;
  std::string dir_;
  int ran_ = 0;
  std::string out_, err_;
};

TEST_F(CommandLineTest, EveryRequestFlag_ReachesItsField) {
  ASSERT_EQ(Run({"ask",
                 "--temperature",
                 "0.5",
                 "--top-k",
                 "40",
                 "--top-p",
                 "0.9",
                 "--min-p",
                 "0.1",
                 "--typical-p",
                 "0.8",
                 "--repetition-penalty",
                 "1.1",
                 "--presence-penalty",
                 "-1",
                 "--frequency-penalty",
                 "0.5",
                 "--logit-bias",
                 "17=-2.5",
                 "--logit-bias",
                 "3=4",
                 "--allowed-token-ids",
                 "1,2,3",
                 "--banned-token-ids",
                 "4",
                 "--seed",
                 "18446744073709551615",
                 "--max-tokens",
                 "7",
                 "--min-tokens",
                 "2",
                 "--stop",
                 "a,b",
                 "--stop",
                 "\n",
                 "--stop-token-ids",
                 "5,6",
                 "--include-stop",
                 "--ignore-eos",
                 "--n",
                 "2",
                 "--logprobs",
                 "0",
                 "--prompt-logprobs",
                 "3",
                 "--priority",
                 "-5",
                 "--suffix",
                 "end",
                 "--parse-special-tokens",
                 "--no-special-tokens",
                 "--show-special-tokens"}),
            10)
      << err_;
  const v1::Sampling& sampling = request_.sampling();
  EXPECT_EQ(sampling.temperature(), 0.5);
  EXPECT_EQ(sampling.top_k(), 40);
  EXPECT_EQ(sampling.top_p(), 0.9);
  EXPECT_EQ(sampling.min_p(), 0.1);
  EXPECT_EQ(sampling.typical_p(), 0.8);
  EXPECT_EQ(sampling.repetition_penalty(), 1.1);
  EXPECT_EQ(sampling.presence_penalty(), -1);
  EXPECT_EQ(sampling.frequency_penalty(), 0.5);
  EXPECT_EQ(sampling.logit_bias().at(17), -2.5f);
  EXPECT_EQ(sampling.logit_bias().at(3), 4.0f);
  EXPECT_THAT(sampling.allowed_token_ids(), ElementsAre(1, 2, 3));
  EXPECT_THAT(sampling.banned_token_ids(), ElementsAre(4));
  EXPECT_EQ(sampling.seed(), 18446744073709551615u);
  EXPECT_EQ(request_.stop().max_tokens(), 7);
  EXPECT_EQ(request_.stop().min_tokens(), 2);
  EXPECT_THAT(request_.stop().strings(), ElementsAre("a,b", "\n"));
  EXPECT_THAT(request_.stop().token_ids(), ElementsAre(5, 6));
  EXPECT_TRUE(request_.stop().include_matched());
  EXPECT_TRUE(request_.stop().ignore_eos());
  EXPECT_EQ(request_.n(), 2);
  EXPECT_TRUE(request_.has_logprobs());
  EXPECT_EQ(request_.logprobs(), 0);
  EXPECT_EQ(request_.prompt_logprobs(), 3);
  EXPECT_EQ(request_.priority(), -5);
  EXPECT_EQ(request_.suffix(), "end");
  EXPECT_TRUE(request_.parse_special_tokens());
  EXPECT_TRUE(request_.has_add_special_tokens());
  EXPECT_FALSE(request_.add_special_tokens());
  EXPECT_TRUE(request_.show_special_tokens());
}

// A field that nobody set takes the server's default; so it must be absent, and no field may lack a flag.
TEST_F(CommandLineTest, NoFlags_LeaveEveryFieldAbsent) {
  ASSERT_EQ(Run({"ask"}), 10);
  request_.mutable_sampling();
  v1::GenerateRequest empty;
  empty.mutable_sampling();
  empty.mutable_stop();
  EXPECT_EQ(request_.SerializeAsString(), empty.SerializeAsString());
}

TEST_F(CommandLineTest, EveryFieldOfSamplingAndStop_HasAFlag) {
  Build();
  std::set<std::string> keys;
  const CommandSpec spec = DescribeTree(root_, actions_);
  for (const FlagSpec& flag : spec.Find("ask")->flags) keys.insert(flag.config_key);
  const std::map<std::string, std::string> renamed = {
      {"strings", "stop"}, {"include_matched", "include-stop"}, {"token_ids", "stop-token-ids"}};
  for (const auto* descriptor : {v1::Sampling::descriptor(), v1::Stop::descriptor()}) {
    for (int i = 0; i < descriptor->field_count(); ++i) {
      std::string key = descriptor->field(i)->name();
      if (const auto found = renamed.find(key); found != renamed.end()) key = found->second;
      std::replace(key.begin(), key.end(), '_', '-');
      EXPECT_EQ(keys.count(key), 1u) << descriptor->field(i)->full_name() << " has no flag --" << key;
    }
  }
}

TEST_F(CommandLineTest, MalformedLogitBias_IsRefused) {
  for (const char* bias : {"17", "=1", "a=1", "17=", "17=x"}) {
    CommandLineTest::TearDown();
    CLI::App root("t", "t");
    v1::GenerateRequest request;
    AddSamplingFlags(root, &request);
    const char* words[] = {"t", "--logit-bias", bias};
    EXPECT_THROW(root.parse(3, words), CLI::ParseError) << bias;
  }
}

TEST_F(CommandLineTest, EnvironmentVariable_SetsTheFlag) {
  setenv("STATEHOUSE_TEMPERATURE", "0.25", 1);
  setenv("STATEHOUSE_IGNORE_EOS", "true", 1);
  setenv("STATEHOUSE_STOP_TOKEN_IDS", "7,8", 1);
  ASSERT_EQ(Run({"ask"}), 10) << err_;
  EXPECT_EQ(request_.sampling().temperature(), 0.25);
  EXPECT_TRUE(request_.stop().ignore_eos());
  EXPECT_THAT(request_.stop().token_ids(), ElementsAre(7, 8));
}

TEST_F(CommandLineTest, SeveralSources_CommandLineBeatsEnvironmentBeatsSectionBeatsTop) {
  const std::string file = WriteConfig(
      "seed = 1\nmax-tokens = 1\ntemperature = 0.1\ntop-k = 1\n[ask]\nseed = 2\nmax-tokens = 2\ntemperature = 0.2\n");
  setenv("STATEHOUSE_TEMPERATURE", "0.3", 1);
  setenv("STATEHOUSE_MAX_TOKENS", "3", 1);
  ASSERT_EQ(Run({"ask", "--max-tokens", "4", "--config", file.c_str()}), 10) << err_;
  EXPECT_EQ(request_.stop().max_tokens(), 4);
  EXPECT_EQ(request_.sampling().temperature(), 0.3);
  EXPECT_EQ(request_.sampling().seed(), 2u);
  EXPECT_EQ(request_.sampling().top_k(), 1);
}

TEST_F(CommandLineTest, ConfigFileOfTheEnvironment_IsReadWithListsAndFlags) {
  const std::string file = WriteConfig(
      "[ask]\nstop = [\"a, b\", \"c\"]\nallowed-token-ids = [1, 2]\ninclude-stop = true\nignore-eos = false\n");
  setenv("STATEHOUSE_CONFIG", file.c_str(), 1);
  ASSERT_EQ(Run({"ask"}), 10) << err_;
  EXPECT_THAT(request_.stop().strings(), ElementsAre("a, b", "c"));
  EXPECT_THAT(request_.sampling().allowed_token_ids(), ElementsAre(1, 2));
  EXPECT_TRUE(request_.stop().include_matched());
  EXPECT_FALSE(request_.stop().ignore_eos());
}

TEST_F(CommandLineTest, UnknownKeyInTheConfigFile_IsRefusedWithTheNearest) {
  const std::string file = WriteConfig("\n[ask]\ntemprature = 1\n");
  EXPECT_EQ(Run({"ask", "--config", file.c_str()}), 2);
  EXPECT_THAT(err_, HasSubstr("line 3: there is no flag \"temprature\"; did you mean \"temperature\"?"));
}

TEST_F(CommandLineTest, UnknownSectionInTheConfigFile_IsRefused) {
  const std::string file = WriteConfig("[akx]\ntemperature = 1\n");
  EXPECT_EQ(Run({"ask", "--config", file.c_str()}), 2);
  EXPECT_THAT(err_, HasSubstr("line 2: there is no command \"akx\"; did you mean \"ask\"?"));
}

TEST_F(CommandLineTest, MissingConfigFile_IsAnError) {
  EXPECT_EQ(Run({"ask", "--config", "/no/such/file.toml"}), 2);
  EXPECT_THAT(err_, HasSubstr("/no/such/file.toml"));
}

TEST_F(CommandLineTest, VariableMeantForAnotherCommand_DoesNotMakeThisOneFail) {
  setenv("STATEHOUSE_DIR", "/no/such/directory", 1);
  EXPECT_EQ(Run({"ask"}), 10) << err_;
}

TEST_F(CommandLineTest, AFlagThatMeansSomethingElseElsewhere_HasAVariableOfItsOwn) {
  setenv("STATEHOUSE_JSON", "true", 1);
  setenv("STATEHOUSE_BENCH_JSON", "figures.json", 1);
  ASSERT_EQ(Run({"bench", "load"}), 30) << err_;
  const CLI::Option* option = root_.get_subcommand("bench")->get_subcommand("load")->get_option("--json");
  EXPECT_THAT(option->results(), ElementsAre("figures.json"));
  unsetenv("STATEHOUSE_JSON");
  unsetenv("STATEHOUSE_BENCH_JSON");
}

TEST_F(CommandLineTest, VariableOfThisCommand_IsChecked) {
  setenv("STATEHOUSE_DIR", "/no/such/directory", 1);
  EXPECT_EQ(Run({"bench"}), 2);
  EXPECT_THAT(err_, HasSubstr("/no/such/directory"));
}

TEST_F(CommandLineTest, MisspeltCommand_SuggestsTheNearest) {
  EXPECT_EQ(Run({"aks"}), 2);
  EXPECT_THAT(err_, HasSubstr("there is no command aks; did you mean ask?"));
  EXPECT_EQ(ran_, 0);
}

TEST_F(CommandLineTest, MisspeltFlag_SuggestsTheNearest) {
  EXPECT_EQ(Run({"ask", "--temprature=1"}), 2);
  EXPECT_THAT(err_, HasSubstr("there is no flag --temprature; did you mean --temperature?"));
  EXPECT_THAT(err_, HasSubstr("statehouse ask --help"));
}

TEST_F(CommandLineTest, WrongValue_NamesTheFlag) {
  EXPECT_EQ(Run({"ask", "--top-k", "many"}), 2);
  EXPECT_THAT(err_, HasSubstr("--top-k"));
}

TEST_F(CommandLineTest, InnerCommand_RunsInsteadOfTheOuter) {
  EXPECT_EQ(Run({"bench", "load", "--num-prompts", "3"}), 30) << err_;
}

TEST_F(CommandLineTest, FlagOfTheOuterCommandBehindTheInner_IsRefused) {
  EXPECT_EQ(Run({"bench", "load", "--dir", "/tmp"}), 2);
  EXPECT_THAT(err_, HasSubstr("bench load has no flag --dir"));
  EXPECT_EQ(ran_, 0);
}

TEST_F(CommandLineTest, NoCommand_PrintsHelpAndFails) {
  EXPECT_EQ(Run({}), 2);
  EXPECT_THAT(err_, HasSubstr("Commands:"));
}

TEST_F(CommandLineTest, HelpOfACommand_SucceedsEvenWithABrokenConfigFile) {
  const std::string file = WriteConfig("nonsense\n");
  setenv("STATEHOUSE_CONFIG", file.c_str(), 1);
  EXPECT_EQ(Run({"bench", "load", "--help"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("Usage: statehouse bench load"));
  EXPECT_EQ(ran_, 0);
}

TEST_F(CommandLineTest, Version_IsPrintedAnywhere) {
  EXPECT_EQ(Run({"ask", "--version"}), 0);
  EXPECT_EQ(out_, "statehouse 1.2.3\n");
}

TEST_F(CommandLineTest, Completion_PrintsAScriptWithEveryCommand) {
  EXPECT_EQ(Run({"completion", "bash"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("\"bench load\") words=\"--num-prompts"));
}

void CheckFlags(const CommandSpec& command, const std::string& path) {
  EXPECT_THAT(command.help, testing::EndsWith(".")) << path;
  if (command.runs && command.commands.empty()) {
    EXPECT_THAT(command.footer, HasSubstr("Examples:\n  ")) << path;
  }
  std::set<std::string> short_names;
  for (const FlagSpec& flag : command.flags) {
    const std::string name = path + " " + flag.name;
    EXPECT_THAT(flag.help, Not(IsEmpty())) << name;
    EXPECT_THAT(flag.help, Not(testing::EndsWith("."))) << name;
    if (!flag.short_name.empty()) {
      EXPECT_TRUE(short_names.insert(flag.short_name).second) << name;
    }
    if (flag.positional || flag.name == "--help" || flag.name == "--version" || flag.name == "--config") continue;
    EXPECT_EQ(flag.env, EnvNameOf(flag.config_key)) << name;
    EXPECT_TRUE("--" + flag.config_key == flag.name || flag.config_key.ends_with(flag.name.substr(1))) << name;
  }
  for (const CommandSpec& sub : command.commands) CheckFlags(sub, path + " " + sub.name);
}

TEST(ClientCommands, EveryFlagOfTheTree_HasHelpEnvironmentAndConfigKey) {
  CLI::App root("A test.", "statehouse");
  root.set_help_flag("--help,-h", "Help");
  Actions actions;
  std::string dir;
  OfflineGeneration offline;
  offline.add_flags = [&](CLI::App& app) { app.add_option("--model", dir, "A checkpoint"); };
  offline.open = [](const v1::GenerateRequest&) { return absl::UnimplementedError("not in this test"); };
  AddClientCommands(root, offline, &actions);
  AddLoadBenchmark(
      *root.add_subcommand("bench", "Measure."), [](const std::vector<PlotArea>&) { return std::string(); },
      /*write=*/{}, &actions);
  FinishTree(root, "v", &actions);
  const CommandSpec spec = DescribeTree(root, actions);
  CheckFlags(spec, "statehouse");
  for (const char* name :
       {"chat", "generate", "status", "models", "health", "cancel", "tokenize", "detokenize", "bench", "completion"}) {
    EXPECT_NE(spec.Find(name), nullptr) << name;
  }
}

}  // namespace
}  // namespace statehouse::cli
