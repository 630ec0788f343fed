// How far results are from exact ones, as a multiple of what a plain program of the same precision is off by: noted by
// the tests of a program, and its worst cases per type and form printed at its end.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>

#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

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
    ++worst.count;
  }
  void TearDown() override {
    for (const auto& [name, worst] : worst_)
      std::printf("worst ratio to the plain program: %-40s %.2f of %d\n", name.c_str(), worst.ratio, worst.count);
  }

 private:
  struct Worst {
    double ratio = 0;
    int count = 0;
  };
  std::map<std::string, Worst> worst_;
};
// Registered before the tests run, as their framework wants it.
inline const bool kNotesErrorRatios = (ErrorRatios::Get(), true);

}  // namespace statehouse::kernels
