#include "kernels/activation/activation.h"

#include <limits>

#include "tests/kernels/kernel_test_support.h"

namespace statehouse::kernels {
namespace {

constexpr double kUnit = std::numeric_limits<float>::epsilon();

// Small, ordinary and extreme values, and a ragged size.
std::vector<float> Inputs(std::mt19937& rng) {
  std::vector<float> x = Normals(rng, 40000, 3.0f);
  const std::vector<float> wide = Uniforms(rng, 10001, -120, 120);
  const std::vector<float> small = Normals(rng, 1000, 1e-4f);
  x.insert(x.end(), wide.begin(), wide.end());
  x.insert(x.end(), small.begin(), small.end());
  for (const float v : {0.0f, 1e-30f, -1e-30f, 1e30f, -1e30f, 88.0f, -88.0f, 3e38f, -3e38f}) x.push_back(v);
  return x;
}

double Silu(double x) { return x / (1 + std::exp(-x)); }
// 0.5 (1 + tanh u) as 1 / (1 + e^-2u), which does not cancel for negative x.
double Gelu(double x) { return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double LogSigmoidOf(double x) { return std::fmin(x, 0) - std::log1p(std::exp(-std::fabs(x))); }

template <typename Fn>
void ExpectSameBitsEverywhere(const std::vector<float>& x, const Fn& apply, std::vector<float>& result) {
  result.clear();
  ForEachTarget([&](int64_t) {
    for (int threads = 1; threads <= 4; ++threads) {
      ThreadPool pool(threads);
      std::vector<float> y = x;
      apply(y, pool);
      if (result.empty()) result = y;
      EXPECT_TRUE(SameBits(y, result));
    }
  });
}

TEST(Activation, GeluTanh_IsCloseAndTheSameEverywhere) {
  std::mt19937 rng = SeededRng(41);
  const std::vector<float> x = Inputs(rng);
  std::vector<float> y;
  ExpectSameBitsEverywhere(
      x, [](std::vector<float>& v, ThreadPool& pool) { GeluTanh(v.data(), v.size(), pool); }, y);
  std::vector<double> want(x.size());
  for (size_t i = 0; i < x.size(); ++i) want[i] = std::fabs(x[i]) > 1e3 ? std::fmax(x[i], 0) : Gelu(x[i]);
  // The exponent u carries a relative error of some units, so e^u carries |u| times that.
  EXPECT_TRUE(Near(y, want, [&](size_t i) {
    const double u = std::fmin(90.0, std::fabs(1.6 * (x[i] + 0.0447 * std::pow(x[i], 3))));
    return kUnit * (4 + 4 * u) * std::fabs(want[i]) + 1e-35;
  }));
}

TEST(Activation, SiluMul_IsCloseAndTheSameEverywhere) {
  std::mt19937 rng = SeededRng(42);
  const std::vector<float> x = Inputs(rng);
  const std::vector<float> up = Uniforms(rng, x.size(), -2, 2);
  std::vector<float> y;
  ExpectSameBitsEverywhere(
      x, [&](std::vector<float>& v, ThreadPool& pool) { SiluMul(v.data(), up.data(), v.size(), pool); }, y);
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = std::fabs(x[i]) > 1e3 ? std::fmax(x[i], 0) * up[i] : Silu(x[i]) * up[i];
    if (!std::isfinite(static_cast<float>(want))) continue;
    ASSERT_NEAR(y[i], want, 6 * kUnit * std::fabs(want) + 1e-35) << x[i];
  }
}

TEST(Activation, LogSigmoid_IsCloseRelativelyEvenWhereTiny_AndNeverPositive) {
  std::mt19937 rng = SeededRng(43);
  const std::vector<float> x = Inputs(rng);
  std::vector<float> y;
  ExpectSameBitsEverywhere(
      x, [](std::vector<float>& v, ThreadPool& pool) { LogSigmoid(v.data(), v.size(), pool); }, y);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_LE(y[i], 0) << x[i];
    const double want = LogSigmoidOf(x[i]);
    ASSERT_NEAR(y[i], want, 5 * kUnit * std::fabs(want) + 2e-38) << x[i];
  }
}

TEST(Activation, References_AgreeWithTheFormulas) {
  std::vector<float> x = {-2.0f, 0.0f, 1.5f};
  const std::vector<float> up = {2, 2, 2};
  std::vector<float> gelu = x, silu = x, log_sigmoid = x;
  GeluTanhRef(gelu.data(), 3);
  SiluMulRef(silu.data(), up.data(), 3);
  LogSigmoidRef(log_sigmoid.data(), 3);
  for (int i = 0; i < 3; ++i) {
    EXPECT_FLOAT_EQ(gelu[i], Gelu(x[i]));
    EXPECT_FLOAT_EQ(silu[i], 2 * Silu(x[i]));
    EXPECT_FLOAT_EQ(log_sigmoid[i], LogSigmoidOf(x[i]));
  }
}

TEST(Activation, Sizes0To40_TouchNothingBehind) {
  ThreadPool pool(2);
  for (int64_t size = 0; size <= 40; ++size) {
    std::vector<float> x(size + 20, 1.0f);
    GeluTanh(x.data(), size, pool);
    for (size_t i = size; i < x.size(); ++i) ASSERT_EQ(x[i], 1.0f);
    for (int64_t i = 0; i < size; ++i) ASSERT_NE(x[i], 1.0f);
  }
}

}  // namespace
}  // namespace statehouse::kernels
