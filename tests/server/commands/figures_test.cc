#include "server/commands/figures.h"

#include <gtest/gtest.h>

namespace statehouse {
namespace {

TEST(WithPrefix, AnySize_HasThreeDigitsInStepsOfAThousand) {
  EXPECT_EQ(WithPrefix(0, "B"), "0 B");
  EXPECT_EQ(WithPrefix(999, "B"), "999 B");
  EXPECT_EQ(WithPrefix(0.25, "B"), "0.25 B");
  EXPECT_EQ(WithPrefix(30'720, "B"), "30.7 kB");
  EXPECT_EQ(WithPrefix(999'700, "B"), "1.00 MB");
  EXPECT_EQ(WithPrefix(255.6e6, "B"), "256 MB");
  EXPECT_EQ(WithPrefix(5.76e9, "FLOP"), "5.76 GFLOP");
  EXPECT_EQ(WithPrefix(1e19, "B"), "10000 PB");
}

TEST(Tokens, SmallNumbersAreExact_LargeOnesShort) {
  EXPECT_EQ(Tokens(9999), "9999");
  EXPECT_EQ(Tokens(131'072), "131.1 k");
  EXPECT_EQ(Tokens(1'000'000), "1 M");
}

}  // namespace
}  // namespace statehouse
