// What a value of a flag may be, and what is said when it is not: whichever of command line, environment and config
// file it came from.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "clients/cli/command_tree.h"
#include "clients/cli/connection_flags.h"
#include "clients/cli/request_flags.h"
#include "clients/flags/number_flags.h"

namespace statehouse::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

// A program with one command, `ask`.
class FlagValuesTest : public testing::Test {
 protected:
  FlagValuesTest() { setenv("XDG_CONFIG_HOME", (testing::TempDir() + "/nothing_here").c_str(), 1); }
  ~FlagValuesTest() override {
    for (const std::string& name : variables_) unsetenv(name.c_str());
  }

  void Set(const std::string& variable, const std::string& value) {
    setenv(variable.c_str(), value.c_str(), 1);
    variables_.push_back(variable);
  }

  // Exit status of `ask` with these words, 10 if it ran; what was said on standard error is in err_.
  int Ask(std::vector<const char*> words) {
    CLI::App root("A test.", "statehouse");
    root.set_help_flag("--help,-h", "Help");
    Actions actions;
    CLI::App* ask = root.add_subcommand("ask", "Ask.");
    request_.Clear();
    AddSamplingFlags(*ask, &request_);
    AddCacheFlags(*ask, &request_);
    ConnectionOptions connection;
    AddConnectionFlags(*ask, &connection);
    int32_t port = 50051;
    AddNumber(*ask, "--port", &port, "Port", {.least = -1, .most = 65535});
    session_.clear();
    ask->add_option("--session", session_, "Session")->type_name("NAME");
    ask->add_option("--system", session_, "Free text");
    bool cache = true;
    ask->add_flag("--cache,!--no-cache", cache, "Cache");
    json_.clear();
    ask->add_option("--json,--ask-json", json_, "A file")->type_name("FILE");
    actions[ask] = [] { return 10; };
    FinishTree(root, "statehouse 1.2.3", &actions);
    words.insert(words.begin(), {"statehouse", "ask"});
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int status = RunCommandLine(root, actions, static_cast<int>(words.size()), words.data());
    out_ = testing::internal::GetCapturedStdout();
    err_ = testing::internal::GetCapturedStderr();
    return status;
  }
  // As if the config file were that.
  int AskWithConfig(const std::string& text) {
    std::ofstream(file_) << text;
    return Ask({"--config", file_.c_str()});
  }

  const std::string file_ = testing::TempDir() + "/flag_values_test.toml";
  std::vector<std::string> variables_;
  v1::GenerateRequest request_;
  std::string session_, json_, out_, err_;
};

TEST_F(FlagValuesTest, NumberThatCannotBe_IsRefusedWithFlagValueAndWhatIsAllowed) {
  const struct {
    const char *flag, *value, *expected;
  } kCases[] = {{"--seed", "", "a whole number, 0 or more"},
                {"--seed", "-1", "a whole number, 0"},
                {"--seed", "18446744073709551616", "a whole number, 0 to 18446744073709551615"},
                {"--temperature", "", "a number"},
                {"--temperature", "nan", "a number"},
                {"--top-k", "99999999999999999999", "a whole number, -9223372036854775808 to 9223372036854775807"},
                {"--max-tokens", "1e3", "a whole number"},
                {"--timeout", "nan", "a number, 0 to 31536000"},
                {"--timeout", "1e300", "a number, 0 to 31536000"},
                {"--timeout", "-1", "a number, 0 to 31536000"},
                {"--allowed-token-ids", "", "a whole number, 0 or more"},
                {"--banned-token-ids", "", "a whole number, 0 or more"},
                {"--stop-token-ids", "1,,2", "a whole number, 0 or more"},
                {"--logit-bias", "99999999999=100", "ID=BIAS"},
                {"--logit-bias", "5=1e9999", "ID=BIAS"},
                {"--logit-bias", "5=nan", "ID=BIAS"},
                {"--logit-bias", "-1=2", "ID=BIAS"}};
  for (const auto& it : kCases) {
    EXPECT_EQ(Ask({it.flag, it.value}), 2) << it.flag << " " << it.value;
    EXPECT_THAT(err_, HasSubstr(std::string(it.flag) + ": \""));
    EXPECT_THAT(err_, HasSubstr(std::string("is not allowed; expected ") + it.expected));
    EXPECT_LT(err_.size(), 200u) << err_;
  }
  EXPECT_EQ(Ask({"--seed", "010"}), 10) << err_;
  EXPECT_EQ(request_.sampling().seed(), 10u) << "decimal";
}

TEST_F(FlagValuesTest, EmptyValueOfAVariableThatIsNotSet_IsRefusedWhereItWouldMeanNotGiven) {
  EXPECT_EQ(Ask({"--session", ""}), 2);
  EXPECT_THAT(err_, HasSubstr("--session: \"\" is not allowed; expected NAME; leave it out for none"));
  EXPECT_EQ(Ask({"--token", ""}), 2);
  EXPECT_EQ(Ask({"--system", ""}), 10) << err_ << " is text, which may be empty";
  Set("STATEHOUSE_SESSION", "");
  EXPECT_EQ(Ask({}), 10) << err_ << " an empty variable counts as not set";
}

TEST_F(FlagValuesTest, ValueOfTheEnvironment_IsRefusedWithTheVariablesName) {
  Set("STATEHOUSE_PORT", "tcp://10.0.0.1:50051");
  EXPECT_EQ(Ask({}), 2);
  EXPECT_THAT(err_,
              HasSubstr("--port: \"tcp://10.0.0.1:50051\" is not allowed; expected a whole number, -1 to 65535 (set "
                        "by the environment variable STATEHOUSE_PORT)"));
  EXPECT_EQ(Ask({"--port", "x"}), 2);
  EXPECT_THAT(err_, Not(HasSubstr("STATEHOUSE_PORT"))) << "the command line set it";
}

TEST_F(FlagValuesTest, ValueOfTheConfigFile_IsRefusedWithFileLineAndKey) {
  EXPECT_EQ(AskWithConfig("[ask]\nport = 70000\n"), 2);
  EXPECT_THAT(err_,
              HasSubstr("--port: \"70000\" is not allowed; expected a whole number, -1 to 65535 (set by port in line 2 "
                        "of " +
                        file_ + ")"));
  EXPECT_EQ(AskWithConfig("port = [1, 2]\n"), 2);
  EXPECT_THAT(err_, HasSubstr("--port: 2 values are not allowed; expected one (set by port in line 1"));
  EXPECT_EQ(AskWithConfig("[ask]\nignore-eos = [true, false]\n"), 2);
  EXPECT_THAT(err_, HasSubstr("line 2: ignore-eos: an array is not allowed; expected true or false"));
}

TEST_F(FlagValuesTest, SwitchThatIsNeitherOnNorOff_IsRefused) {
  for (const char* name : {"IGNORE_EOS", "INCLUDE_STOP", "BYPASS_CACHE", "TLS"}) {
    const std::string variable = std::string("STATEHOUSE_") + name;
    Set(variable, "maybe");
    EXPECT_EQ(Ask({}), 2) << name;
    EXPECT_THAT(err_, HasSubstr("\"maybe\" is not allowed; expected true or false (set by the environment variable " +
                                variable));
    Set(variable, "Yes");
    EXPECT_EQ(Ask({}), 10) << err_;
    unsetenv(variable.c_str());
  }
  EXPECT_EQ(Ask({"--ignore-eos=maybe"}), 2);
  EXPECT_THAT(err_, HasSubstr("--ignore-eos: \"maybe\" is not allowed; expected true or false"));
}

TEST_F(FlagValuesTest, ValueThatIsMissingOrGivenTwice_IsToldWhatIsExpected) {
  EXPECT_EQ(Ask({"--port"}), 2);
  EXPECT_THAT(err_, HasSubstr("--port: a value is missing; expected INT, -1 to 65535"));
  EXPECT_EQ(Ask({"--port", "1", "--port", "2"}), 2);
  EXPECT_THAT(err_, HasSubstr("--port: 2 values are not allowed; expected one"));
}

TEST_F(FlagValuesTest, OwnNameOfAFlagInItsSection_IsAKeyBesideTheVariables) {
  EXPECT_EQ(AskWithConfig("[ask]\njson = \"a.json\"\n"), 10) << err_;
  EXPECT_EQ(json_, "a.json");
  EXPECT_EQ(AskWithConfig("ask-json = \"b.json\"\n"), 10) << err_;
  EXPECT_EQ(json_, "b.json");
  EXPECT_EQ(AskWithConfig("json = \"a.json\"\n"), 2) << "it means something else elsewhere";
  EXPECT_EQ(AskWithConfig("[ask]\njson = \"a.json\"\nask-json = \"b.json\"\n"), 2);
  EXPECT_THAT(err_, HasSubstr("line 3: ask-json is set in line 2 already, as json"));
}

TEST_F(FlagValuesTest, Help_ShowsBoundsNegationsAndWhatAnEmptyVariableMeans) {
  EXPECT_EQ(Ask({"--help"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("--port INT"));
  EXPECT_THAT(out_, HasSubstr("[-1 to 65535; default 50051; STATEHOUSE_PORT]"));
  EXPECT_THAT(out_, HasSubstr("off: --no-cache"));
  EXPECT_THAT(out_, HasSubstr("an empty one counts as not set"));
}

TEST_F(FlagValuesTest, ConfigFileThatIsNotThere_IsNamed) {
  EXPECT_EQ(Ask({"--config", "/no/such/file.toml"}), 2);
  EXPECT_THAT(err_, HasSubstr("--config: "));
  EXPECT_THAT(err_, HasSubstr("/no/such/file.toml"));
  EXPECT_THAT(err_, Not(HasSubstr("STATEHOUSE_CONFIG")));
  Set("STATEHOUSE_CONFIG", "/no/such/file.toml");
  EXPECT_EQ(Ask({}), 2);
  EXPECT_THAT(err_, HasSubstr("(set by the environment variable STATEHOUSE_CONFIG)"));
}

TEST_F(FlagValuesTest, ConfigFileThatCannotBeRead_IsNotLeftOut) {
  const std::string home = testing::TempDir() + "/flag_values_home";
  const std::string file = home + "/statehouse/config.toml";
  std::filesystem::create_directories(file);  // a folder
  setenv("XDG_CONFIG_HOME", home.c_str(), 1);
  EXPECT_EQ(Ask({}), 2);
  EXPECT_THAT(err_, HasSubstr("--config: " + file));
  EXPECT_THAT(err_, Not(HasSubstr("STATEHOUSE_CONFIG")));
  EXPECT_EQ(Ask({"--help"}), 0);
  std::filesystem::remove_all(home);
}

}  // namespace
}  // namespace statehouse::cli
