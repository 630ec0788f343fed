// The golden models: checkpoints with random weights and what a float64 reference makes of them. Cases are listed at
// run time; STATEHOUSE_GOLDEN adds a folder of more.
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tests/models/golden_cases.h"
#include "tests/support/golden.h"

namespace statehouse {
namespace {

using testing::FindGoldenCases;
using testing::GoldenCase;
using testing::GoldenKind;
using testing::kLongestExhaustive;
using testing::kLongPiece;
using testing::Load;
using testing::ReadCases;
using testing::RunCase;
using testing::SameBits;
using testing::Tolerance;

class GoldenModels : public ::testing::Test {
 protected:
  void SetUp() override {
    auto dirs = FindGoldenCases(GoldenKind::kModel);
    ASSERT_TRUE(dirs.ok()) << dirs.status();
    for (const auto& dir : *dirs) models_[dir] = ReadCases(dir);
  }

  kernels::ThreadPool pool_{2};
  std::map<std::filesystem::path, std::vector<GoldenCase>> models_;
};

TEST_F(GoldenModels, EverySwitchOverChunkAndCut_MatchTheReferenceAndOneAnother) {
  for (const auto& [dir, cases] : models_) {
    for (const int64_t chunk : {16, 64}) {
      for (const int64_t switch_over : {int64_t{0}, chunk, kernels::kSwitchOverAuto}) {
        LoadOptions options;
        options.chunk = chunk;
        options.switch_over = switch_over;
        const auto model = Load(dir, options, pool_, kLongestExhaustive);
        ASSERT_NE(model, nullptr);
        for (const GoldenCase& golden : cases) {
          if (static_cast<int64_t>(golden.prompt.size()) > kLongestExhaustive) continue;
          SCOPED_TRACE(golden.label + ", C " + std::to_string(chunk) + ", switch-over " + std::to_string(switch_over));
          const std::vector<float> whole = RunCase(*model, golden, kLongestExhaustive, Tolerance{});
          EXPECT_TRUE(SameBits(whole, RunCase(*model, golden, 7, Tolerance{}))) << "pieces of 7 differ";
          EXPECT_TRUE(SameBits(whole, RunCase(*model, golden, 1, Tolerance{}))) << "token by token differs";
        }
      }
    }
  }
}

TEST_F(GoldenModels, LongCases_ChunkedAcrossTheirSwitchOver_MatchTheReference) {
  for (const auto& [dir, cases] : models_) {
    const auto config = ReadConfig(dir);
    ASSERT_TRUE(config.ok()) << config.status();
    std::vector<int64_t> switch_overs = {kernels::kSwitchOverAuto};
    // The config's own length, where it is not what auto comes to anyway.
    if (config->model.switch_over_bound) switch_overs.push_back(*config->model.switch_over_bound);
    for (const GoldenCase& golden : cases) {
      if (static_cast<int64_t>(golden.prompt.size()) <= kLongestExhaustive) continue;
      for (const int64_t switch_over : switch_overs) {
        SCOPED_TRACE(golden.label + ", switch-over " + std::to_string(switch_over));
        LoadOptions options;
        options.switch_over = switch_over;
        const auto model = Load(dir, options, pool_, kLongPiece);
        ASSERT_NE(model, nullptr);
        RunCase(*model, golden, kLongPiece, Tolerance{});
      }
    }
  }
}

// Weights rounded after the fact: the reference used them as stored, so the difference is the rounding's. The
// tolerances are those of degree 2; a score is a product of `degree` equal factors, and each brings its rounding along.
TEST_F(GoldenModels, RoundedWeights_StayWithinTheirTolerance) {
  struct Rounded {
    LoadOptions::DType dtype;
    const char* name;
    Tolerance tolerance;
  };
  const Rounded kinds[] = {
      {LoadOptions::DType::kF32, "f32", {.logits = 1e-4, .nll = 1e-4, .greedy = true}},
      {LoadOptions::DType::kBF16, "bf16", {.logits = 1.5e-2, .nll = 1.5e-2, .greedy = false}},
      {LoadOptions::DType::kInt8, "int8", {.logits = 5e-2, .nll = 5e-2, .greedy = false}},
  };
  for (const auto& [dir, cases] : models_) {
    for (const Rounded& kind : kinds) {
      LoadOptions options;
      options.dtype = kind.dtype;
      const auto model = Load(dir, options, pool_, kLongestExhaustive);
      ASSERT_NE(model, nullptr);
      Tolerance tolerance = kind.tolerance;
      if (kind.dtype != LoadOptions::DType::kF32) tolerance.logits *= model->config().degree / 2.0;
      for (const GoldenCase& golden : cases) {
        if (static_cast<int64_t>(golden.prompt.size()) > kLongestExhaustive) continue;
        SCOPED_TRACE(golden.label + ", " + kind.name);
        const std::vector<float> whole = RunCase(*model, golden, kLongestExhaustive, tolerance);
        EXPECT_TRUE(SameBits(whole, RunCase(*model, golden, 7, tolerance))) << "pieces of 7 differ";
      }
    }
  }
}

}  // namespace
}  // namespace statehouse
