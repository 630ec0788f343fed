// Flags that hold numbers or a few words.
#include "clients/flags/number_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

#include "clients/flags/choices.h"

namespace statehouse {
namespace {

using ::testing::ElementsAre;

// What went wrong when `words` were parsed; empty: nothing.
std::string Parse(CLI::App& app, std::vector<const char*> words) {
  words.insert(words.begin(), "t");
  try {
    app.parse(static_cast<int>(words.size()), words.data());
  } catch (const CLI::ParseError& error) {
    return error.what();
  }
  return "";
}

TEST(AddNumber, AllowedValue_ReachesTheVariable) {
  CLI::App app("t", "t");
  int32_t port = 50051;
  const CLI::Option* option = AddNumber(app, "--port,-p", &port, "Port", {.least = -1, .most = 65535});
  EXPECT_EQ(option->get_default_str(), "50051");
  EXPECT_EQ(option->get_type_name(), "INT:-1 to 65535");
  EXPECT_EQ(Parse(app, {"-p", "-1"}), "");
  EXPECT_EQ(port, -1);
}

TEST(AddNumber, WhatIsNotAllowed_NamesFlagValueAndBounds) {
  for (const char* value : {"", "65536", "tcp://10.0.0.1:50051", "99999999999999999999"}) {
    CLI::App app("t", "t");
    int32_t port = 50051;
    AddNumber(app, "--port", &port, "Port", {.least = -1, .most = 65535});
    EXPECT_EQ(Parse(app, {"--port", value}),
              std::string("--port: \"") + value + "\" is not allowed; expected a whole number, -1 to 65535");
    EXPECT_EQ(port, 50051);
  }
}

TEST(AddNumbers, CommasAndSeveralFlags_AreJoined) {
  CLI::App app("t", "t");
  std::vector<int64_t> lengths = {1, 2};
  EXPECT_EQ(AddNumbers(app, "--length", &lengths, "Lengths", {.least = 1})->get_default_str(), "1,2");
  EXPECT_EQ(Parse(app, {"--length", "4,5", "--length", "6"}), "");
  EXPECT_THAT(lengths, ElementsAre(4, 5, 6));
}

TEST(AddNumbers, EmptyOrForeignMember_IsRefused) {
  for (const char* value : {"", ",", "1,", "1,,2", "1,x", "0", "1,99999999999999999999", "[1,2]"}) {
    CLI::App app("t", "t");
    std::vector<int64_t> lengths = {7};
    AddNumbers(app, "--length", &lengths, "Lengths", {.least = 1});
    const std::string error = Parse(app, {"--length", value});
    EXPECT_THAT(error, testing::StartsWith("--length: \"")) << value;
    EXPECT_THAT(error, testing::HasSubstr(std::string("\"") + value + "\"")) << "all of it, too";
    EXPECT_THAT(lengths, ElementsAre(7));
  }
}

TEST(OneOf, AnotherWord_IsRefusedWithAllThatThereAre) {
  CLI::App app("t", "t");
  std::string pass;
  app.add_option("PASS", pass)->check(OneOf({"fwd", "bwd", "decode"}));
  EXPECT_EQ(Parse(app, {"fwx"}), "PASS: \"fwx\" is not allowed; expected fwd, bwd or decode");
}

}  // namespace
}  // namespace statehouse
