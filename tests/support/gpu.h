// For tests that need a GPU: what happens where there is none.
//
//   void SetUp() override {
//     if (!testing::HasGpu()) return;  // the test is skipped, or has failed
#pragma once

#include <cstdlib>
#include <string>

#include "gtest/gtest.h"
#include "kernels/cuda/device.h"

namespace statehouse::testing {

// Skips the running test and returns false without a GPU. With STATEHOUSE_REQUIRE_GPU=1 the test fails instead: a run
// that is there to check the GPU must not pass without one.
inline bool HasGpu() {
  if (kernels::CountDevices() > 0) return true;
  const char* const required = std::getenv("STATEHOUSE_REQUIRE_GPU");
  const bool is_required = required != nullptr && std::string(required) == "1";
  // Lambdas, because both leave the function that they stand in. A fatal failure keeps the test's body from running.
  if (is_required) [] { FAIL() << "no GPU, and STATEHOUSE_REQUIRE_GPU is 1"; }();
  if (!is_required) [] { GTEST_SKIP() << "no GPU: the kernels were compiled, not run"; }();
  return false;
}

}  // namespace statehouse::testing
