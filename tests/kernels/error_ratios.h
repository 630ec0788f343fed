// How far results are from exact ones, as a multiple of what a plain program of the same precision is off by: noted by
// the tests of a program, judged over all its cases of a type and form, and printed, at its end.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>

#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

// The most that a kernel may be further off than the plain program: the mean over all cases of a type and form that one
// process runs.
inline constexpr double kErrorRatio = 1.5;
// In one case, where one row or one sum decides, either program may be the luckier one.
inline constexpr double kOneCaseRatio = 8;

class ErrorRatios : public ::testing::Environment {
 public:
  // Registered with the test program at the first call, which owns it.
  static ErrorRatios& Get() {
    static ErrorRatios* const ratios =
        static_cast<ErrorRatios*>(::testing::AddGlobalTestEnvironment(new ErrorRatios()));
    return *ratios;
  }

  void Note(RetentionDtype dtype, const std::string& form, double ratio) {
    Worst& worst = worst_[std::string(RetentionDtypeName(dtype)) + " " + form];
    worst.ratio = std::max(worst.ratio, ratio);
    worst.sum += ratio;
    ++worst.count;
  }
  void TearDown() override {
    for (const auto& [name, worst] : worst_) {
      const double mean = worst.sum / worst.count;
      std::printf("ratio to the plain program: %-36s mean %.2f of %3d, worst %.2f\n", name.c_str(), mean, worst.count,
                  worst.ratio);
      EXPECT_LE(mean, kErrorRatio) << name;
    }
  }

 private:
  struct Worst {
    double ratio = 0, sum = 0;
    int count = 0;
  };
  std::map<std::string, Worst> worst_;
};
// Registered before the tests run, as their framework wants it.
inline const bool kNotesErrorRatios = (ErrorRatios::Get(), true);

}  // namespace statehouse::kernels
