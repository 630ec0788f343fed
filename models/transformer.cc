#include "models/transformer.h"

#include <algorithm>
#include <array>
#include <bit>

#include "models/content_hash.h"

namespace statehouse {
namespace {

// What decides the numbers beside the weights: two models that agree in it can share states.
void HashConfig(const ModelConfig& config, const kernels::RetentionLayout& layout, ContentHash* hash) {
  hash->AddText(FamilyName(config.family));
  for (int64_t number :
       {config.hidden_size, config.intermediate_size, config.num_layers, config.vocab_size, int64_t{config.heads_q},
        int64_t{config.heads_kv}, int64_t{config.head_dim}, int64_t{config.degree}, int64_t{config.use_bias},
        layout.shape().chunk, layout.shape().switch_over}) {
    hash->AddNumber(static_cast<uint64_t>(number));
  }
  hash->AddNumber(std::bit_cast<uint64_t>(config.rope_theta));
  hash->AddNumber(std::bit_cast<uint32_t>(config.norm_epsilon));
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, const kernels::RetentionLayout& layout, kernels::ThreadPool* pool)
    : config_(config), layout_(layout), pool_(*pool), rope_(config.head_dim, config.rope_theta) {}

void Transformer::FinishLoading(const TensorTable& table, uint64_t weights_hash) {
  weight_bytes_ = 0;
  num_parameters_ = 0;
  for (const TensorSpec& spec : table.specs()) {
    const bool absent = spec.matrix != nullptr ? spec.matrix->rows() == 0 : spec.vector->empty();
    if (absent) continue;
    num_parameters_ += spec.num_elements();
    weight_bytes_ +=
        spec.matrix != nullptr ? spec.matrix->bytes() : static_cast<int64_t>(spec.vector->size() * sizeof(float));
  }
  // The type that holds most parameters: embedding and gates may be kept wider.
  std::array<int64_t, 3> parameters_by_type{};
  for (const TensorSpec& spec : table.specs()) {
    if (spec.matrix != nullptr && spec.matrix->rows() > 0) {
      parameters_by_type[static_cast<size_t>(spec.matrix->type())] += spec.num_elements();
    }
  }
  weight_type_ = static_cast<kernels::WeightType>(
      std::max_element(parameters_by_type.begin(), parameters_by_type.end()) - parameters_by_type.begin());
  ContentHash hash;
  HashConfig(config_, layout_, &hash);
  hash.AddNumber(weights_hash);
  fingerprint_ = hash.Digest();
}

absl::Status Transformer::Reserve(int64_t max_rows, int64_t max_logit_rows) {
  return workspace_.Reserve(config_, layout_, max_rows, max_logit_rows, pool_.num_threads());
}

void Transformer::SwitchOver(float* memory, int64_t unit) {
  float* layer_memory = memory + unit / config_.heads_kv * layout_.layer_floats();
  kernels::SwitchOver(layout_, layer_memory, static_cast<int>(unit % config_.heads_kv), workspace_.retention_scratch(),
                      pool_);
}

void Transformer::Run(const Linear& linear, const float* input, float* output, bool add) {
  kernels::MatMul({.weights = &linear.weight,
                   .x = input,
                   .y = output,
                   .bias = linear.bias.empty() ? nullptr : linear.bias.data(),
                   .num_rows = workspace_.num_rows(),
                   .output = add ? kernels::MatMulOutput::kAdd : kernels::MatMulOutput::kStore},
                  pool_);
}

void Transformer::Rotate(float* heads, int num_heads) {
  kernels::ApplyRope({.x = heads,
                      .cos = workspace_.cos,
                      .sin = workspace_.sin,
                      .num_rows = workspace_.num_rows(),
                      .num_heads = num_heads,
                      .head_dim = config_.head_dim},
                     pool_);
}

void Transformer::MultiplyHead(int64_t num_rows, float* logits) {
  if (num_rows == 0) return;
  kernels::MatMul({.weights = &head(), .x = workspace_.normed, .y = logits, .num_rows = num_rows}, pool_);
}

}  // namespace statehouse
