// Elementary functions in double that give the same bits on every host (libm's do not). Relative error below 1e-15 in
// the stated ranges. For tables and single values: kernels use the vector forms in vector_math-inl.h. Thread-safe.
#pragma once

#include <cstdint>

namespace statehouse::kernels {

double Exp(double x);                      // 0 below -745, infinity above 709.8
double Log(double x);                      // x > 0 and finite; -infinity at 0; NaN below
double Pow(double base, double exponent);  // base > 0

// An angle of `turns` whole turns; only its fraction counts. |turns| < 2^51.
struct SinCosResult {
  double sin = 0;
  double cos = 0;
};
SinCosResult SinCosTurns(double turns);
// The same of an angle in radians, |angle| < 1e9; the absolute error grows as angle · 1e-16.
SinCosResult SinCos(double angle);

// A number as the unevaluated sum of two doubles, about 106 bits: for constants that are multiplied by large positions.
struct DoubleDouble {
  double hi = 0;
  double lo = 0;
};
// base^(numerator / denominator) / 2π to about 1e-28 relative. base in [1e-3, 1e12], |numerator / denominator| <= 1.
DoubleDouble PowOverTwoPi(double base, double numerator, double denominator);
// The fraction in [-0.5, 0.5] of multiplier · x, right to about 1e-16 absolute for |multiplier| < 2^53, |x| <= 1e3.
double FractionOfProduct(double multiplier, DoubleDouble x);

}  // namespace statehouse::kernels
