#include "models/sizing.h"

#include "kernels/power_retention/layout.h"
#include "models/retention_plan.h"

namespace statehouse {
namespace {

constexpr int64_t kFloatBytes = 4;
constexpr int64_t kBF16Bytes = 2;

bool HasStateForm(const ModelConfig& config) { return config.degree == 2 || config.head_dim <= kMaxDegree4HeadDim; }

int64_t Expanded(const ModelConfig& config) { return kernels::ExpandedSize(config.head_dim, config.degree); }

// Pairs of a layer and a key/value head.
int64_t StateUnits(const ModelConfig& config) { return config.num_layers * config.heads_kv; }

int64_t NormAndBiasParameters(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t q_width = int64_t{config.heads_q} * config.head_dim;
  const int64_t kv_width = int64_t{config.heads_kv} * config.head_dim;
  if (config.family == Family::kBrumby) return config.num_layers * (2 * hidden + 2 * config.head_dim) + hidden;
  const int64_t norms = (2 * config.num_layers + 1) * 2 * hidden;
  const int64_t biases = q_width + 2 * kv_width + config.heads_kv + hidden + config.intermediate_size + hidden;
  return norms + (config.use_bias ? config.num_layers * biases : 0);
}

}  // namespace

int64_t LinearParameters(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t q_width = int64_t{config.heads_q} * config.head_dim;
  const int64_t kv_width = int64_t{config.heads_kv} * config.head_dim;
  const int64_t retention = hidden * (2 * q_width + 2 * kv_width + config.heads_kv);
  const int64_t mlp_matrices = config.family == Family::kBrumby ? 3 : 2;
  return config.num_layers * (retention + mlp_matrices * hidden * config.intermediate_size);
}

int64_t HeadParameters(const ModelConfig& config) { return config.vocab_size * config.hidden_size; }

int64_t NumParameters(const ModelConfig& config) {
  const int64_t copies = config.tie_embeddings ? 1 : 2;
  return LinearParameters(config) + copies * HeadParameters(config) + NormAndBiasParameters(config);
}

int64_t StateBytes(const ModelConfig& config, StateType type) {
  if (!HasStateForm(config)) return 0;
  const int64_t element = type == StateType::kF32 ? kFloatBytes : kBF16Bytes;
  return StateUnits(config) * Expanded(config) * (config.head_dim * element + kFloatBytes);
}

int64_t TailBytes(const ModelConfig& config) {
  return StateUnits(config) * 2 * config.chunk * (2 * config.head_dim + 1) * kFloatBytes;
}

int64_t KvCacheBytesPerToken(const ModelConfig& config) {
  return StateUnits(config) * 2 * config.head_dim * kBF16Bytes;
}

int64_t BreakEvenTokens(const ModelConfig& config, StateType type) {
  const int64_t per_token = KvCacheBytesPerToken(config);
  return (StateBytes(config, type) + per_token - 1) / per_token;
}

int64_t SequencesThatFit(int64_t bytes, int64_t bytes_per_sequence) { return bytes / bytes_per_sequence; }

double LinearFlopsPerToken(const ModelConfig& config) { return 2.0 * static_cast<double>(LinearParameters(config)); }

double RetentionFlopsPerToken(const ModelConfig& config) {
  const double state = HasStateForm(config) ? static_cast<double>(Expanded(config)) * (config.head_dim + 1) : 0.0;
  const double chunk = static_cast<double>(config.chunk) * config.head_dim;
  return static_cast<double>(config.num_layers) *
         (2 * state * config.heads_q + 2 * state * config.heads_kv + 2 * chunk * config.heads_q);
}

double HeadFlopsPerRow(const ModelConfig& config) { return 2.0 * static_cast<double>(HeadParameters(config)); }

int64_t WeightBytes(const ModelConfig& config, kernels::WeightType type) {
  constexpr int64_t kInt8Block = 64;  // inputs that share one float32 scale
  const int64_t matrices = NumParameters(config) - NormAndBiasParameters(config);
  const int64_t vectors = NormAndBiasParameters(config) * kFloatBytes;
  switch (type) {
    case kernels::WeightType::kF32:
      return matrices * kFloatBytes + vectors;
    case kernels::WeightType::kBF16:
      return matrices * kBF16Bytes + vectors;
    case kernels::WeightType::kInt8: {
      // The embedding stays bf16; the gates, a few thousandths of a percent, are not told apart.
      const int64_t quantised = matrices - HeadParameters(config);
      return quantised + quantised / kInt8Block * kFloatBytes + HeadParameters(config) * kBF16Bytes + vectors;
    }
  }
  return 0;
}

int64_t DecodeFloorBytes(const ModelConfig& config, int64_t weight_bytes, int64_t num_sequences, StateType type) {
  const int64_t average_tail = TailBytes(config) * 3 / 4;
  return weight_bytes + num_sequences * (StateBytes(config, type) + average_tail);
}

}  // namespace statehouse
