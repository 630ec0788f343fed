#include "kernels/math/scalar_math.h"

#include <bit>
#include <cmath>
#include <limits>

#include "kernels/sampling/choice_math.h"

namespace statehouse::kernels {
namespace {

constexpr double kLn2Hi = 0x1.62e42fefa38p-1;  // the low bits are zero: n·kLn2Hi is exact for |n| < 2^11
constexpr double kLn2Lo = 0x1.ef35793c7673p-45;
constexpr double kLog2E = 0x1.71547652b82fep+0;

// 2^n for n in [-1022, 1023].
double PowerOfTwo(int n) { return std::bit_cast<double>(static_cast<uint64_t>(n + 1023) << 52); }

// Sums and products with their rounding errors (Dekker, Knuth; std::fma is exact on every host).
DoubleDouble TwoSum(double a, double b) {
  const double sum = a + b;
  const double b_part = sum - a;
  return {sum, (a - (sum - b_part)) + (b - b_part)};
}
DoubleDouble TwoProduct(double a, double b) {
  const double product = a * b;
  return {product, std::fma(a, b, -product)};
}
DoubleDouble Add(DoubleDouble a, DoubleDouble b) {
  DoubleDouble sum = TwoSum(a.hi, b.hi);
  return TwoSum(sum.hi, sum.lo + (a.lo + b.lo));
}
DoubleDouble Multiply(DoubleDouble a, DoubleDouble b) {
  DoubleDouble product = TwoProduct(a.hi, b.hi);
  return TwoSum(product.hi, product.lo + (a.hi * b.lo + a.lo * b.hi));
}
DoubleDouble Divide(DoubleDouble a, double b) {
  const double quotient = a.hi / b;
  const DoubleDouble back = TwoProduct(quotient, b);
  return TwoSum(quotient, ((a.hi - back.hi) - back.lo + a.lo) / b);
}

// e^x by halving the argument, a Taylor series, and squaring back. |x| < 700.
DoubleDouble ExpDoubleDouble(DoubleDouble x) {
  constexpr int kHalvings = 12;  // |x| / 4096 < 0.18, so 16 terms reach 1e-28
  const double shrink = PowerOfTwo(-kHalvings);
  const DoubleDouble r = {x.hi * shrink, x.lo * shrink};
  DoubleDouble term = {1, 0};
  DoubleDouble sum = {1, 0};
  for (int i = 1; i <= 18; ++i) {
    term = Divide(Multiply(term, r), i);
    sum = Add(sum, term);
  }
  for (int i = 0; i < kHalvings; ++i) sum = Multiply(sum, sum);
  return sum;
}

// One Newton step from double: log a = y + (a e^-y - 1) - (…)²/2, and (…) is about 1e-16.
DoubleDouble LogDoubleDouble(double a) {
  const double y = Log(a);
  const DoubleDouble ratio = Multiply({a, 0}, ExpDoubleDouble({-y, 0}));
  const DoubleDouble delta = Add(ratio, {-1, 0});
  return Add({y, 0}, {delta.hi, delta.lo - 0.5 * delta.hi * delta.hi});
}

}  // namespace

double Exp(double x) {
  if (!(x > -745.2)) return x == x ? 0.0 : x;
  if (x > 709.782712893384) return std::numeric_limits<double>::infinity();
  const double n = std::nearbyint(x * kLog2E);
  const double r = (x - n * kLn2Hi) - n * kLn2Lo;
  // Taylor to r^13 / 13!: |r| <= 0.347, so the remainder is below 5e-18.
  double sum = 1.0 / 6227020800.0;
  constexpr double kInverseFactorials[] = {
      1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      0.5};
  for (const double c : kInverseFactorials) sum = sum * r + c;
  const double result = 1.0 + (r + r * r * sum);
  const int half = static_cast<int>(n) / 2;  // two factors: 2^n itself may be subnormal
  return result * PowerOfTwo(half) * PowerOfTwo(static_cast<int>(n) - half);
}

double Log(double x) {
  if (!(x > 0)) return x == 0 ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  if (!std::isfinite(x)) return x;
  int exponent = 0;
  const double m = std::frexp(x, &exponent);  // exact; m in [0.5, 1)
  return LogOfParts(m, exponent);
}

double Pow(double base, double exponent) {
  const DoubleDouble power = Multiply(LogDoubleDouble(base), {exponent, 0});
  const double main = Exp(power.hi);
  return std::isfinite(main) ? main + main * power.lo : main;
}

SinCosResult SinCosTurns(double turns) {
  const double fraction = turns - std::nearbyint(turns);  // exact
  // Quarter turns: angle = quadrant·π/2 + r, |r| <= π/4.
  const double quadrant = std::nearbyint(fraction * 4);
  const double r = (fraction - quadrant * 0.25) * 6.283185307179586476925;
  const double r2 = r * r;
  // Taylor: r^17/17! and r^18/18! are below 1e-17 at π/4.
  constexpr double kSin[] = {
      -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800, 1.0 / 362880, -1.0 / 5040, 1.0 / 120, -1.0 / 6};
  constexpr double kCos[] = {
      1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600, -1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24};
  double s = 0;
  for (const double c : kSin) s = s * r2 + c;
  double c2 = 0;
  for (const double c : kCos) c2 = c2 * r2 + c;
  const double sin_r = r + r * (r2 * s);
  const double cos_r = (1.0 - 0.5 * r2) + r2 * r2 * c2;
  switch (static_cast<int>(quadrant) & 3) {
    case 0:
      return {sin_r, cos_r};
    case 1:
      return {cos_r, -sin_r};
    case 2:
      return {-sin_r, -cos_r};
    default:
      return {-cos_r, sin_r};
  }
}

SinCosResult SinCos(double angle) {
  return SinCosTurns(FractionOfProduct(angle, {0x1.45f306dc9c883p-3, -0x1.6b01ec5417056p-57}));  // 1 / 2π
}

DoubleDouble PowOverTwoPi(double base, double numerator, double denominator) {
  constexpr DoubleDouble kInverseTwoPi = {0x1.45f306dc9c883p-3, -0x1.6b01ec5417056p-57};
  const DoubleDouble exponent = Divide({numerator, 0}, denominator);
  return Multiply(ExpDoubleDouble(Multiply(LogDoubleDouble(base), exponent)), kInverseTwoPi);
}

double FractionOfProduct(double multiplier, DoubleDouble x) {
  const DoubleDouble product = TwoProduct(multiplier, x.hi);
  const double fraction = (product.hi - std::nearbyint(product.hi)) + (product.lo + multiplier * x.lo);
  return fraction - std::nearbyint(fraction);
}

}  // namespace statehouse::kernels
