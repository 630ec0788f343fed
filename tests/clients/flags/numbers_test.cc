// Numbers and amounts of memory as people type them.
#include "clients/flags/numbers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/flags/bytes.h"

namespace statehouse {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(ParseNumber, WholeNumbersOfEveryType_AreReadInDecimal) {
  EXPECT_EQ(*ParseNumber<int64_t>("-9223372036854775808"), INT64_MIN);
  EXPECT_EQ(*ParseNumber<uint64_t>("18446744073709551615"), UINT64_MAX);
  EXPECT_EQ(*ParseNumber<int32_t>("+5"), 5);
  EXPECT_EQ(*ParseNumber<int32_t>("010"), 10) << "not octal";
}

TEST(ParseNumber, WhatIsNoWholeNumber_IsRefused) {
  for (const char* text :
       {"", " ", "-", "+", "+-1", "--1", "1 ", " 1", "1,2", "1.5", "1e3", "0x10", "1_000", "ten", "nan"}) {
    EXPECT_FALSE(ParseNumber<int64_t>(text).ok()) << text;
  }
  EXPECT_EQ(Message(ParseNumber<int64_t>("").status()), "\"\" is not allowed; expected a whole number");
}

TEST(ParseNumber, WhatTheTypeCannotHold_IsRefusedAndDoesNotSaturate) {
  EXPECT_EQ(Message(ParseNumber<int32_t>("99999999999", {.least = 0}).status()),
            "\"99999999999\" is not allowed; expected a whole number, 0 to 2147483647");
  EXPECT_EQ(Message(ParseNumber<uint64_t>("18446744073709551616").status()),
            "\"18446744073709551616\" is not allowed; expected a whole number, 0 to 18446744073709551615");
  EXPECT_EQ(Message(ParseNumber<uint64_t>("-1").status()), "\"-1\" is not allowed; expected a whole number, 0 or more");
}

TEST(ParseNumber, Fractions_AreReadIfFinite) {
  EXPECT_EQ(*ParseNumber<double>("-2.5"), -2.5);
  EXPECT_EQ(*ParseNumber<double>("1e3"), 1000);
  for (const char* text : {"", "nan", "inf", "-inf", "1e9999", "1e-9999", "1.5x", "0x1p3"}) {
    EXPECT_FALSE(ParseNumber<double>(text).ok()) << text;
  }
  EXPECT_TRUE(ParseNumber<double>("inf", {.least = 0, .infinite = true}).ok());
  EXPECT_FALSE(ParseNumber<double>("-inf", {.infinite = true}).ok());
}

TEST(ParseNumber, WhatIsOutOfBounds_IsToldThem) {
  EXPECT_THAT(Message(ParseNumber<double>("0", {.least = 0, .most = 10, .above = true}).status()),
              HasSubstr("expected a number, above 0 to 10"));
  EXPECT_THAT(Message(ParseNumber<int32_t>("65536", {.least = -1, .most = 65535}).status()),
              HasSubstr("expected a whole number, -1 to 65535"));
  EXPECT_THAT(Message(ParseNumber<double>("-1", {.least = 0}).status()),
              AllOf(HasSubstr("\"-1\""), HasSubstr("expected a number, 0 or more")));
}

TEST(ParseBytes, UnitsAndFractions_AreRead) {
  EXPECT_EQ(*ParseBytes("0"), 0);
  EXPECT_EQ(*ParseBytes("65536"), 65536);
  EXPECT_EQ(*ParseBytes("64b"), 64);
  EXPECT_EQ(*ParseBytes("80GB"), 80'000'000'000);
  EXPECT_EQ(*ParseBytes("2gib"), int64_t{2} << 30);
  EXPECT_EQ(*ParseBytes("1.5GiB"), int64_t{3} << 29);
  EXPECT_EQ(*ParseBytes("2 MiB"), int64_t{2} << 20);
  EXPECT_EQ(*ParseBytes("9223372036854775807"), INT64_MAX);
}

TEST(ParseBytes, WhatIsNoAmount_IsRefusedWithAnExample) {
  for (const char* text : {"", "-1", "MiB", "1.5.5MiB", ".", "parsecs", "10parsecs", "1kilo", "8EiB", "9.9EiB",
                           "9223372036854775808", "1e3", "nan"}) {
    const absl::Status status = ParseBytes(text).status();
    EXPECT_THAT(Message(status), HasSubstr("is not allowed; expected bytes such as 65536, 64MiB")) << text;
  }
}

}  // namespace
}  // namespace statehouse
