// The golden models: checkpoints with random weights and what a float64 reference makes of them. Cases are listed at
// run time; STATEHOUSE_GOLDEN adds a folder of more.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/parallel/thread_pool.h"
#include "models/json.h"
#include "models/model.h"
#include "models/safetensors.h"
#include "tests/models/sequence_runner.h"
#include "tests/support/golden.h"

namespace statehouse {
namespace {

using testing::Argmax;
using testing::FindGoldenCases;
using testing::GoldenKind;
using testing::SequenceRunner;

constexpr int64_t kLongestExhaustive = 600;  // longer cases run once, chunked
constexpr int64_t kLongPiece = 512;

struct GoldenCase {
  std::string label;
  std::vector<int32_t> prompt;
  std::vector<int64_t> positions;
  std::vector<int32_t> greedy;
  double nll = 0;
  std::vector<float> logits;  // [positions, vocab]
};

struct Tolerance {
  double logits = 1e-4;  // ||out - ref|| / ||ref||
  double nll = 1e-4;     // relative
  bool greedy = true;
};

std::vector<GoldenCase> ReadCases(const std::filesystem::path& dir) {
  const auto document = ReadJsonFile(dir / "golden.json");
  const auto tensors = Safetensors::Open(dir / "golden.safetensors");
  EXPECT_TRUE(document.ok()) << document.status();
  EXPECT_TRUE(tensors.ok()) << tensors.status();
  std::vector<GoldenCase> cases;
  if (!document.ok() || !tensors.ok()) return cases;
  for (const auto& entry : (*document)["cases"]) {
    const std::string name = "logits_" + std::to_string(cases.size());
    GoldenCase one;
    one.label = dir.filename().string() + " " + name;
    one.prompt = entry["prompt"].get<std::vector<int32_t>>();
    one.positions = entry["positions"].get<std::vector<int64_t>>();
    one.greedy = entry["greedy"].get<std::vector<int32_t>>();
    one.nll = entry["nll"].get<double>();
    const auto found = tensors->tensors().find(name);
    if (found == tensors->tensors().end() || found->second.dtype != "F32") {
      ADD_FAILURE() << dir << ": no float32 tensor " << name;
      continue;
    }
    one.logits.resize(found->second.num_elements());
    std::memcpy(one.logits.data(), found->second.data, found->second.num_bytes);
    cases.push_back(std::move(one));
  }
  EXPECT_FALSE(cases.empty()) << dir;
  return cases;
}

// Mean of -log softmax(logits[t])[prompt[t + 1]], nats; 0 for a prompt of one token.
double MeanNll(const std::vector<float>& logits, const std::vector<int32_t>& prompt, int64_t vocab) {
  double sum = 0;
  for (size_t t = 0; t + 1 < prompt.size(); ++t) {
    const float* row = logits.data() + t * vocab;
    double largest = row[0];
    for (int64_t i = 1; i < vocab; ++i) largest = std::max<double>(largest, row[i]);
    double total = 0;
    for (int64_t i = 0; i < vocab; ++i) total += std::exp(row[i] - largest);
    sum += largest + std::log(total) - row[prompt[t + 1]];
  }
  return prompt.size() < 2 ? 0 : sum / static_cast<double>(prompt.size() - 1);
}

double RelativeError(const GoldenCase& golden, const std::vector<float>& logits, int64_t vocab) {
  double difference = 0;
  double reference = 0;
  for (size_t i = 0; i < golden.positions.size(); ++i) {
    for (int64_t j = 0; j < vocab; ++j) {
      const double want = golden.logits[i * vocab + j];
      const double got = logits[golden.positions[i] * vocab + j];
      difference += (got - want) * (got - want);
      reference += want * want;
    }
  }
  return std::sqrt(difference / reference);
}

// Prompt logits, then those of the greedy continuation: everything whose bits are compared.
std::vector<float> RunCase(Model& model, const GoldenCase& golden, int64_t piece, const Tolerance& tolerance) {
  const int64_t vocab = model.config().vocab_size;
  SequenceRunner runner(&model);
  std::vector<float> logits = runner.Append(golden.prompt, piece);
  EXPECT_LE(RelativeError(golden, logits, vocab), tolerance.logits);
  EXPECT_NEAR(MeanNll(logits, golden.prompt, vocab), golden.nll, tolerance.nll * std::max(1.0, golden.nll));

  std::vector<int32_t> greedy;
  std::vector<float> last(logits.end() - vocab, logits.end());
  for (size_t i = 0; i < golden.greedy.size(); ++i) {
    greedy.push_back(Argmax(last));
    if (i + 1 == golden.greedy.size()) break;
    last = runner.Append({&greedy.back(), 1}, 1);
    logits.insert(logits.end(), last.begin(), last.end());
  }
  if (tolerance.greedy) {
    EXPECT_EQ(greedy, golden.greedy);
  }
  return logits;
}

std::unique_ptr<Model> Load(const std::filesystem::path& dir, const LoadOptions& options, kernels::ThreadPool& pool,
                            int64_t max_rows) {
  auto model = LoadModel(dir, options, &pool);
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return nullptr;
  const absl::Status reserved = (*model)->Reserve(max_rows, max_rows);
  EXPECT_TRUE(reserved.ok()) << reserved;
  return *std::move(model);
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

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
