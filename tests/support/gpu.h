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
  if (required != nullptr && std::string(required) == "1") {
    ADD_FAILURE() << "no GPU, and STATEHOUSE_REQUIRE_GPU is 1";
  }
  [] { GTEST_SKIP() << "no GPU: the kernels were compiled, not run"; }();
  return false;
}

}  // namespace statehouse::testing
