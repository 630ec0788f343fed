#include "kernels/math/scalar_math.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "tests/kernels/kernel_test_support.h"

namespace statehouse::kernels {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

TEST(ScalarMath, Exp_IsWithinTwoUnits) {
  std::mt19937 rng = SeededRng(1);
  std::uniform_real_distribution<double> uniform(-700, 700);
  for (int i = 0; i < 200000; ++i) {
    const double x = i % 2 ? uniform(rng) : uniform(rng) / 700;
    const long double want = std::exp(static_cast<long double>(x));
    ASSERT_LE(std::fabs(Exp(x) - want) / want, 2 * kEpsilon) << x;
  }
  EXPECT_EQ(Exp(0), 1);
  EXPECT_EQ(Exp(-800), 0);
  EXPECT_EQ(Exp(710), std::numeric_limits<double>::infinity());
  EXPECT_GT(Exp(-744), 0);  // subnormal
  EXPECT_TRUE(std::isnan(Exp(std::nan(""))));
}

TEST(ScalarMath, Log_IsWithinTwoUnits) {
  std::mt19937 rng = SeededRng(2);
  std::uniform_real_distribution<double> uniform(-300, 300);
  for (int i = 0; i < 200000; ++i) {
    const double x = i % 2 ? std::pow(10.0, uniform(rng)) : 1 + uniform(rng) / 1000;
    const long double want = std::log(static_cast<long double>(x));
    ASSERT_LE(std::fabs(Log(x) - want), 2 * kEpsilon * std::fabs(want)) << x;
  }
  EXPECT_EQ(Log(1), 0);
  EXPECT_EQ(Log(0), -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(Log(-1)));
}

TEST(ScalarMath, Pow_IsWithinFourUnits) {
  std::mt19937 rng = SeededRng(3);
  std::uniform_real_distribution<double> exponent(-1, 1);
  for (const double base : {0.5, 2.0, 1e4, 1e6, 5e5, 3.7}) {
    for (int i = 0; i < 2000; ++i) {
      const double y = exponent(rng);
      const long double want = std::pow(static_cast<long double>(base), static_cast<long double>(y));
      ASSERT_LE(std::fabs(Pow(base, y) - want) / want, 4 * kEpsilon) << base << " ^ " << y;
    }
  }
}

TEST(ScalarMath, SinCos_IsRightToDoublePrecision) {
  std::mt19937 rng = SeededRng(4);
  std::uniform_real_distribution<double> uniform(-10, 10);
  for (int i = 0; i < 200000; ++i) {
    const double angle = uniform(rng);
    const SinCosResult result = SinCos(angle);
    ASSERT_NEAR(result.sin, static_cast<double>(std::sin(static_cast<long double>(angle))), 1e-15) << angle;
    ASSERT_NEAR(result.cos, static_cast<double>(std::cos(static_cast<long double>(angle))), 1e-15) << angle;
  }
  EXPECT_EQ(SinCosTurns(0).sin, 0);
  EXPECT_EQ(SinCosTurns(0).cos, 1);
  EXPECT_EQ(SinCosTurns(0.25).sin, 1);
  EXPECT_EQ(SinCosTurns(-0.5).cos, -1);
  EXPECT_EQ(SinCosTurns(3.75).sin, -1);
}

TEST(ScalarMath, FractionOfProduct_KeepsWhatADoubleProductLoses) {
  // (2^31 + 5) / 2π, to 40 digits: 341782637.788472...; long double knows it to 1e-10 only, so count with integers:
  // (2^40 + 1)·(1/3) has the fraction of (2^40 + 1) mod 3 = 2, that is 2/3 - 1.
  const DoubleDouble third = {1.0 / 3, std::fma(-3.0, 1.0 / 3, 1.0) / 3};
  EXPECT_NEAR(FractionOfProduct(1099511627777.0, third), -1.0 / 3, 1e-16);
  EXPECT_NEAR(FractionOfProduct(9007199254740991.0, third), 1.0 / 3, 1e-15);  // 2^53 - 1 = 1 (mod 3)
}

}  // namespace
}  // namespace statehouse::kernels
