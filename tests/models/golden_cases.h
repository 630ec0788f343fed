// The golden models as tests run them: cases, the comparison with the reference, and one case on one model.
#pragma once

#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/parallel/thread_pool.h"
#include "models/json.h"
#include "models/model.h"
#include "models/safetensors.h"
#include "tests/models/sequence_runner.h"

namespace statehouse::testing {

inline constexpr int64_t kLongestExhaustive = 600;  // longer cases run once, chunked
inline constexpr int64_t kLongPiece = 512;

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

inline std::vector<GoldenCase> ReadCases(const std::filesystem::path& dir) {
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
inline double MeanNll(const std::vector<float>& logits, const std::vector<int32_t>& prompt, int64_t vocab) {
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

inline double RelativeError(const GoldenCase& golden, const std::vector<float>& logits, int64_t vocab) {
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
inline std::vector<float> RunCase(Model& model, const GoldenCase& golden, int64_t piece, const Tolerance& tolerance) {
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

inline std::unique_ptr<Model> Load(const std::filesystem::path& dir, const LoadOptions& options,
                                   kernels::ThreadPool& pool, int64_t max_rows) {
  auto model = LoadModel(dir, options, &pool);
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return nullptr;
  const absl::Status reserved = (*model)->Reserve(max_rows, max_rows);
  EXPECT_TRUE(reserved.ok()) << reserved;
  return *std::move(model);
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace statehouse::testing
