// The references of the gradients of what surrounds retention, against central differences.
#include <cmath>
#include <functional>

#include "kernels/activation/activation_backward.h"
#include "kernels/embedding/token_rows.h"
#include "kernels/loss/cross_entropy.h"
#include "kernels/norm/norm_backward.h"
#include "kernels/rope/heads_backward.h"
#include "tests/kernels/kernel_test_support.h"

namespace statehouse::kernels {
namespace {

using Doubles = std::vector<double>;
Doubles ToDoubles(const std::vector<float>& x) { return Doubles(x.begin(), x.end()); }

// The gradient of `loss` by x, element by element.
Doubles CentralDifferences(Doubles x, const std::function<double(const Doubles&)>& loss) {
  Doubles out;
  for (double& element : x) {
    const double given = element, step = 1e-5;
    element = given + step;
    const double above = loss(x);
    element = given - step;
    out.push_back((above - loss(x)) / (2 * step));
    element = given;
  }
  return out;
}
double Dot(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
void ExpectDoublesNear(const Doubles& got, const Doubles& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-7 * (1 + std::fabs(want[i]))) << i;
}

TEST(TrainingOpsRef, Norms_AgreeWithCentralDifferences) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  constexpr size_t kRows = 3, kSize = 7;
  for (const bool is_rms : {false, true}) {
    const Doubles x = ToDoubles(Normals(rng, kRows * kSize)), dy = ToDoubles(Normals(rng, kRows * kSize)),
                  weight = ToDoubles(Normals(rng, kSize));
    const auto loss = [&](const Doubles& of_x, const Doubles& of_weight) {
      double sum = 0;
      for (size_t row = 0; row < kRows; ++row) {
        double mean = 0, variance = 0;
        for (size_t i = 0; i < kSize && !is_rms; ++i) mean += of_x[row * kSize + i] / kSize;
        for (size_t i = 0; i < kSize; ++i) variance += std::pow(of_x[row * kSize + i] - mean, 2) / kSize;
        for (size_t i = 0; i < kSize; ++i)
          sum += dy[row * kSize + i] * of_weight[i] * (of_x[row * kSize + i] - mean) / std::sqrt(variance + 1e-5);
      }
      return sum;
    };
    const NormGradients got = NormBackwardRef(x, dy, weight, 1e-5, is_rms);
    ExpectDoublesNear(got.dx, CentralDifferences(x, [&](const Doubles& it) { return loss(it, weight); }));
    ExpectDoublesNear(got.dweight, CentralDifferences(weight, [&](const Doubles& it) { return loss(x, it); }));
    for (size_t i = 0; i < kSize; ++i) EXPECT_NEAR(got.dbias[i], dy[i] + dy[kSize + i] + dy[2 * kSize + i], 1e-12);
  }
}

TEST(TrainingOpsRef, HeadsActivationsAndLoss_AgreeWithCentralDifferences) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const Doubles x = ToDoubles(Normals(rng, 8)), dy = ToDoubles(Normals(rng, 8)), angles = ToDoubles(Normals(rng, 4));
  Doubles cos, sin;
  for (const double angle : angles) cos.push_back(std::cos(angle)), sin.push_back(std::sin(angle));
  for (const Doubles& norm : {Doubles(), ToDoubles(Normals(rng, 8))}) {
    const HeadGradients got = PrepareHeadBackwardRef(x, norm, 1e-6, cos, sin, dy);
    ExpectDoublesNear(got.dx, CentralDifferences(x, [&](const Doubles& it) {
                        return Dot(dy, PrepareHeadRef(it, norm, 1e-6, cos, sin));
                      }));
    ExpectDoublesNear(got.dnorm, CentralDifferences(norm, [&](const Doubles& it) {
                        return Dot(dy, PrepareHeadRef(x, it, 1e-6, cos, sin));
                      }));
  }
  for (const double at : {-3.0, -0.1, 0.0, 0.7, 4.0}) {
    const double root = std::sqrt(2 / std::acos(-1.0));
    ExpectDoublesNear({GeluTanhDerivative(at)}, CentralDifferences({at}, [&](const Doubles& it) {
                        return 0.5 * it[0] * (1 + std::tanh(root * (it[0] + 0.044715 * std::pow(it[0], 3))));
                      }));
    ExpectDoublesNear({LogSigmoidDerivative(at)},
                      CentralDifferences({at}, [&](const Doubles& it) { return -std::log1p(std::exp(-it[0])); }));
    const SiluMulGradient got = SiluMulBackwardRef(at, 1.3, 0.8);
    ExpectDoublesNear({got.dgate, got.dup}, CentralDifferences({at, 1.3}, [&](const Doubles& it) {
                        return 0.8 * it[0] / (1 + std::exp(-it[0])) * it[1];
                      }));
  }
  ExpectDoublesNear(CrossEntropyRef(x, 3, 1.7).dlogits,
                    CentralDifferences(x, [&](const Doubles& it) { return CrossEntropyRef(it, 3, 1.7).loss; }));
  EXPECT_EQ(CrossEntropyRef(x, -1, 1.7).loss, 0);
  EXPECT_EQ(CrossEntropyRef(x, 8, 1.7).dlogits, Doubles(8));
}

TEST(TokenRows, EveryRow_StandsOnceInItsOrder) {
  const std::vector<int32_t> tokens = {5, 2, 5, 0, 2, 5};
  const TokenRows got = FindTokenRows(tokens);
  EXPECT_EQ(got.tokens, (std::vector<int32_t>{0, 2, 5}));
  EXPECT_EQ(got.firsts, (std::vector<int32_t>{0, 1, 3, 6}));
  EXPECT_EQ(got.rows, (std::vector<int32_t>{3, 1, 4, 0, 2, 5}));
  EXPECT_TRUE(FindTokenRows({}).tokens.empty());
}

}  // namespace
}  // namespace statehouse::kernels
