// What a checkpoint's config.json and generation_config.json say, checked, and with the published quirks understood
// (docs/retention.md, "Model families"). Thread-safety: plain data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/power_retention/layout.h"

namespace statehouse {

enum class Family { kPowerCoder, kBrumby };
const char* FamilyName(Family family);  // "powercoder", "brumby"

struct ModelConfig {
  Family family = Family::kPowerCoder;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t vocab_size = 0;
  int heads_q = 0;
  int heads_kv = 0;
  int head_dim = 0;
  int degree = 2;
  int64_t chunk = 128;  // chunk_size, C
  // The config's switch_over_seq_len as it stands: an upper bound for --switch-over auto (see retention_plan.h). Empty:
  // none.
  std::optional<int64_t> switch_over_bound;
  double rope_theta = 1e4;
  float norm_epsilon = 1e-5f;
  bool use_bias = true;  // powercoder: biases of the projections
  // false: lm_head.weight must be there. true: a powercoder's may be, and then wins; a brumby's is not used.
  bool tie_embeddings = true;
  int64_t max_position_embeddings = 0;  // reported, not enforced
  std::vector<int32_t> bos_ids;         // at most one
  std::vector<int32_t> eos_ids;
  std::vector<std::string> warnings;  // ids out of the vocabulary and the like: logged at load
};

// Sampling defaults of generation_config.json; empty fields were not named there.
struct GenerationDefaults {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::optional<double> min_p;
  std::optional<double> typical_p;
  std::optional<double> repetition_penalty;
  bool greedy = false;  // do_sample: false
};

struct CheckpointConfig {
  ModelConfig model;
  GenerationDefaults generation;
};

// The id of a token by its spelling, or nothing.
using TokenIdResolver = std::function<std::optional<int64_t>(std::string_view spelling)>;

// Where an EOS id comes from when neither config names a usable one: first the spelling that special_tokens_map.json
// gives, looked up with `resolve` (empty: in the tokenizer's JSON files, see token_ids.h), then the tokenizer's own.
struct TokenIdSource {
  TokenIdResolver resolve;
  std::optional<int32_t> tokenizer_eos;
};

// Reads both files. Errors name file, key, value and what is allowed:
// INVALID_ARGUMENT for malformed or contradictory values, UNIMPLEMENTED for options that change the maths and are not
// supported (hybrid_exp, use_exp, sliding windows, RoPE scaling), NOT_FOUND if config.json is missing.
absl::StatusOr<CheckpointConfig> ReadConfig(const std::filesystem::path& checkpoint_dir, const TokenIdSource& ids = {});

}  // namespace statehouse
