// The golden models: checkpoints with random weights and what a float64 reference makes of them. Cases are listed at
// run time; STATEHOUSE_GOLDEN adds a folder of more.
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "models/config.h"
#include "models/retention_plan.h"
#include "tests/models/golden_cases.h"
#include "tests/models/rounded_checkpoint.h"
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

constexpr int64_t kLongestTail = 16384;

class GoldenModels : public ::testing::Test {
 protected:
  void SetUp() override {
    auto dirs = FindGoldenCases(GoldenKind::kModel);
    ASSERT_TRUE(dirs.ok()) << dirs.status();
    for (const auto& dir : *dirs) models_[dir] = ReadCases(dir);
  }

  // A shape without a state form keeps all rows, up to a bound that must be named.
  static bool HasState(const ModelConfig& config) {
    return config.degree == 2 || config.head_dim <= kMaxDegree4HeadDim;
  }
  static LoadOptions OptionsFor(const std::filesystem::path& dir) {
    LoadOptions options;
    const auto config = ReadConfig(dir);
    if (config.ok() && !HasState(config->model)) options.max_tail_tokens = kLongestTail;
    return options;
  }

  kernels::ThreadPool pool_{2};
  std::map<std::filesystem::path, std::vector<GoldenCase>> models_;
};

TEST_F(GoldenModels, EverySwitchOverChunkAndCut_MatchTheReferenceAndOneAnother) {
  for (const auto& [dir, cases] : models_) {
    for (const int64_t chunk : {16, 64}) {
      for (const int64_t switch_over : {int64_t{0}, chunk, kernels::kSwitchOverAuto}) {
        LoadOptions options = OptionsFor(dir);
        if (options.max_tail_tokens > 0 && switch_over != kernels::kSwitchOverAuto) continue;  // it has no state
        options.chunk = chunk;
        options.switch_over = switch_over;
        const auto model = Load(dir, options, pool_, kLongestExhaustive);
        if (model == nullptr) continue;
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
    EXPECT_TRUE(config.ok()) << config.status();
    if (!config.ok()) continue;
    std::vector<int64_t> switch_overs = {kernels::kSwitchOverAuto};
    // The config's own length, where it is not what auto comes to anyway; a bound, so rounded down to whole chunks.
    const int64_t chunk = config->model.chunk;
    if (config->model.switch_over_bound && HasState(config->model))
      switch_overs.push_back(*config->model.switch_over_bound / chunk * chunk);
    for (const GoldenCase& golden : cases) {
      if (static_cast<int64_t>(golden.prompt.size()) <= kLongestExhaustive) continue;
      for (const int64_t switch_over : switch_overs) {
        SCOPED_TRACE(golden.label + ", switch-over " + std::to_string(switch_over));
        LoadOptions options = OptionsFor(dir);
        options.switch_over = switch_over;
        const auto model = Load(dir, options, pool_, kLongPiece);
        if (model == nullptr) continue;
        RunCase(*model, golden, kLongPiece, Tolerance{});
      }
    }
  }
}

// Weights rounded after the fact: the reference used them as stored, so the difference is the rounding's. The
// tolerances are those of degree 2; a score is a product of `degree` equal factors, and each brings its rounding along.
// A float32 model of what rounding leaves must agree much better.
TEST_F(GoldenModels, RoundedWeights_StayWithinTheirToleranceAndComputeWhatRoundingLeaves) {
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
      testing::TempDir rounded_dir;
      testing::WriteRounded(dir, kind.dtype, pool_, rounded_dir.path());
      LoadOptions options = OptionsFor(dir);
      const auto rounded = Load(rounded_dir.path(), options, pool_, kLongestExhaustive);
      options.dtype = kind.dtype;
      const auto model = Load(dir, options, pool_, kLongestExhaustive);
      if (model == nullptr || rounded == nullptr) continue;
      Tolerance tolerance = kind.tolerance;
      if (kind.dtype != LoadOptions::DType::kF32) tolerance.logits *= model->config().degree / 2.0;
      for (const GoldenCase& golden : cases) {
        const auto rows = static_cast<int64_t>(golden.prompt.size());
        if (rows > kLongestExhaustive) continue;
        const std::vector<float> want = RunCase(*rounded, golden, kLongestExhaustive, testing::kAnyTolerance);
        SCOPED_TRACE(golden.label + ", " + kind.name + "; rounding alone is off by " +
                     std::to_string(testing::RelativeError(golden, want, golden.vocab)));
        const std::vector<float> whole = RunCase(*model, golden, kLongestExhaustive, tolerance);
        EXPECT_TRUE(SameBits(whole, RunCase(*model, golden, 7, tolerance))) << "pieces of 7 differ";
        ASSERT_EQ(whole.size(), want.size());
        EXPECT_LE(testing::Distance(whole, want, rows * golden.vocab), 1e-4) << "not what rounding leaves";
      }
    }
  }
}

}  // namespace
}  // namespace statehouse
