#include "models/transformer.h"

#include <algorithm>
#include <array>

#include "models/identity_hash.h"

namespace statehouse {
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
  fingerprint_ = IdentityHash(config_, layout_, weights_hash);
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
