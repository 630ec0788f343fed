// The golden models as tests run them: cases, the comparison with the reference, and one case on one model.
#pragma once

#include <algorithm>
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

using Json = nlohmann::json;

inline constexpr int64_t kLongestExhaustive = 600;  // longer cases run once, chunked
inline constexpr int64_t kLongPiece = 512;

struct GoldenCase {
  std::string label;
  std::vector<int32_t> prompt;
  std::vector<int64_t> positions;
  std::vector<int32_t> greedy;
  double nll = 0;
  int64_t vocab = 0;
  std::vector<float> logits;  // [positions, vocab]
};

struct Tolerance {
  double logits = 1e-4;  // ||out - ref|| / ||ref||
  double nll = 1e-4;     // relative
  bool greedy = true;
};
inline constexpr Tolerance kAnyTolerance = {.logits = 1e30, .nll = 1e30, .greedy = false};

// A failure where the case has no such field, or not of that kind.
template <typename Value>
bool ReadField(const Json& entry, const char* key, Value* to) {
  try {
    *to = entry.at(key).get<Value>();
    return true;
  } catch (const Json::exception& error) {
    ADD_FAILURE() << "golden.json: " << key << ": " << error.what();
    return false;
  }
}

// Everything that the format asks of a case; one that says too little must not pass.
inline bool ReadCase(const Json& entry, const Safetensors& tensors, const std::string& name, GoldenCase* to) {
  double min_margin = 0;
  const bool has_all = ReadField(entry, "prompt", &to->prompt) && ReadField(entry, "positions", &to->positions) &&
                       ReadField(entry, "greedy", &to->greedy) && ReadField(entry, "nll", &to->nll) &&
                       ReadField(entry, "min_margin", &min_margin);
  if (!has_all) return false;
  const auto found = tensors.tensors().find(name);
  const bool is_matrix =
      found != tensors.tensors().end() && found->second.dtype == "F32" && found->second.shape.size() == 2;
  if (!is_matrix || found->second.shape[0] != static_cast<int64_t>(to->positions.size())) {
    ADD_FAILURE() << "golden.safetensors: no float32 tensor " << name << " of [" << to->positions.size() << ", vocab]";
    return false;
  }
  to->vocab = found->second.shape[1];
  to->logits.resize(found->second.num_elements());
  std::memcpy(to->logits.data(), found->second.data, found->second.num_bytes);
  const auto is_token = [to](int32_t token) { return token >= 0 && token < to->vocab; };
  const auto is_row = [to](int64_t row) { return row >= 0 && row < static_cast<int64_t>(to->prompt.size()); };
  const auto is_finite = [](float logit) { return std::isfinite(logit); };
  const char* wrong = nullptr;
  if (to->prompt.empty() || to->positions.empty() || to->greedy.empty()) wrong = "an empty list";
  if (!std::ranges::all_of(to->prompt, is_token)) wrong = "prompt: no token of the vocabulary";
  if (!std::ranges::all_of(to->greedy, is_token)) wrong = "greedy: no token of the vocabulary";
  if (!std::ranges::all_of(to->positions, is_row)) wrong = "positions: no row of the prompt";
  if (!std::ranges::all_of(to->logits, is_finite) || !std::isfinite(to->nll)) wrong = "logits or nll: not finite";
  if (wrong != nullptr) ADD_FAILURE() << wrong;
  return wrong == nullptr;
}

inline std::vector<GoldenCase> ReadCases(const std::filesystem::path& dir) {
  SCOPED_TRACE(dir.string());
  const auto document = ReadJsonFile(dir / "golden.json");
  const auto tensors = Safetensors::Open(dir / "golden.safetensors");
  EXPECT_TRUE(document.ok()) << document.status();
  EXPECT_TRUE(tensors.ok()) << tensors.status();
  std::vector<GoldenCase> cases;
  std::vector<Json> entries;
  if (!document.ok() || !tensors.ok() || !ReadField(*document, "cases", &entries)) return cases;
  for (size_t i = 0; i < entries.size(); ++i) {
    const std::string name = "logits_" + std::to_string(i);
    SCOPED_TRACE(name);
    GoldenCase one;
    one.label = dir.filename().string() + " " + name;
    if (ReadCase(entries[i], *tensors, name, &one)) cases.push_back(std::move(one));
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

// ||a - b|| / ||b|| of the first `count` numbers.
inline double Distance(const std::vector<float>& a, const std::vector<float>& b, int64_t count) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double by = static_cast<double>(a[i]) - b[i];
    difference += by * by;
    norm += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(difference / norm);
}

// Prompt logits, then those of the greedy continuation: everything whose bits are compared.
inline std::vector<float> RunCase(Model& model, const GoldenCase& golden, int64_t piece, const Tolerance& tolerance) {
  const int64_t vocab = model.config().vocab_size;
  EXPECT_EQ(golden.vocab, vocab);
  if (golden.vocab != vocab) return {};
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
