// What the kernel tests share: seeded data, the instruction sets to force, and comparisons that print the worst
// element.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"

namespace statehouse::kernels {

// Printed by every test that draws numbers, so that a failure can be repeated.
inline std::mt19937 SeededRng(uint32_t seed) {
  ::testing::Test::RecordProperty("seed", static_cast<int>(seed));
  std::printf("seed %u\n", seed);
  return std::mt19937(seed);
}

inline std::vector<float> Normals(std::mt19937& rng, int64_t size, float deviation = 1.0f) {
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> out(size);
  for (float& x : out) x = normal(rng);
  return out;
}

inline std::vector<float> Uniforms(std::mt19937& rng, int64_t size, float low, float high) {
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<float> out(size);
  for (float& x : out) x = uniform(rng);
  return out;
}

// Bit for bit, so that NaN equals NaN and -0 does not equal 0.
inline ::testing::AssertionResult SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << "sizes " << a.size() << " and " << b.size();
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
      return ::testing::AssertionFailure() << "element " << i << " is " << a[i] << " and " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

// |out - want| <= tolerance(i) for each element.
template <typename Want, typename Tolerance>
::testing::AssertionResult Near(const std::vector<float>& out, const std::vector<Want>& want,
                                const Tolerance& tolerance) {
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const double excess = std::fabs(static_cast<double>(out[i]) - static_cast<double>(want[i])) / tolerance(i);
    if (!(excess <= worst)) {
      worst = excess;
      at = i;
      if (std::isnan(excess)) break;
    }
  }
  if (worst <= 1) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "element " << at << " is " << out[at] << ", want " << want[at]
                                       << ", tolerance " << tolerance(at) << " exceeded " << worst << " times";
}

// ||out - want|| / ||want||
template <typename Want>
double RelativeError(const std::vector<float>& out, const std::vector<Want>& want) {
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const double difference = static_cast<double>(out[i]) - static_cast<double>(want[i]);
    error += difference * difference;
    norm += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return norm == 0 ? std::sqrt(error) : std::sqrt(error / norm);
}

// Runs fn once with each instruction set that this machine has and the kernels are built for.
inline void ForEachTarget(const std::function<void(int64_t target)>& fn) {
  hwy::SetSupportedTargetsForTest(0);
  const int64_t supported = hwy::SupportedTargets();
  ASSERT_NE(supported & (int64_t{HWY_AVX3} | int64_t{HWY_AVX2} | int64_t{HWY_NEON}), 0)
      << "this machine has none of the instruction sets that are tested";
  for (const int64_t target : {int64_t{HWY_AVX3}, int64_t{HWY_AVX2}, int64_t{HWY_NEON}}) {
    if ((supported & target) == 0) continue;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    SCOPED_TRACE(hwy::TargetName(target));
    fn(target);
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace statehouse::kernels
