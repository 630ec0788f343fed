// Brumby: Qwen3 with power retention in place of attention (docs/retention.md, "Model families").
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/activation/activation.h"
#include "kernels/norm/norm.h"
#include "kernels/power_retention/power_retention.h"
#include "models/transformer.h"

namespace statehouse {
namespace {

struct Layer {
  Norm input_norm;
  Linear q, k, v, g, o;
  Norm q_norm, k_norm;  // per head, [d]
  Norm post_norm;
  Linear gate, up, down;
};

class Brumby final : public Transformer {
 public:
  Brumby(const ModelConfig& config, const kernels::RetentionLayout& layout, kernels::ThreadPool* pool)
      : Transformer(config, layout, pool), layers_(config.num_layers) {}

  void DeclareTensors(TensorTable& table) override;
  absl::Status Forward(const StepBatch& batch, std::span<float> logits) override;

 private:
  void RmsNorm(const Norm& norm, const float* input, float* output, int64_t num_rows, int64_t size);
  void ForwardLayer(const Layer& layer, int64_t layer_idx);

  std::vector<Layer> layers_;
  Norm final_norm_;
};

void Brumby::DeclareTensors(TensorTable& table) {
  const int64_t hidden = config_.hidden_size;
  const int64_t q_width = int64_t{config_.heads_q} * config_.head_dim;
  const int64_t kv_width = int64_t{config_.heads_kv} * config_.head_dim;
  // Two additions per layer to the residual stream: keeps its variance near 1 over the depth.
  const float residual_gain = 1.0f / std::sqrt(2.0f * static_cast<float>(config_.num_layers));

  table.Matrix("model.embed_tokens.weight", config_.vocab_size, hidden, &embedding_).int8_mode = Int8Mode::kBF16;
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    Layer& layer = layers_[i];
    const std::string at = absl::StrCat("model.layers.", i, ".");
    table.Vector(at + "input_layernorm.weight", hidden, &layer.input_norm.weight, /*dummy_value=*/1);
    table.Matrix(at + "self_attn.q_proj.weight", q_width, hidden, &layer.q.weight);
    table.Matrix(at + "self_attn.k_proj.weight", kv_width, hidden, &layer.k.weight);
    table.Matrix(at + "self_attn.v_proj.weight", kv_width, hidden, &layer.v.weight);
    table.Matrix(at + "self_attn.g_proj.weight", config_.heads_kv, hidden, &layer.g.weight).int8_mode =
        Int8Mode::kAsStored;
    table.Matrix(at + "self_attn.o_proj.weight", hidden, q_width, &layer.o.weight, residual_gain);
    table.Vector(at + "self_attn.q_norm.weight", config_.head_dim, &layer.q_norm.weight, /*dummy_value=*/1);
    table.Vector(at + "self_attn.k_norm.weight", config_.head_dim, &layer.k_norm.weight, /*dummy_value=*/1);
    table.Vector(at + "post_attention_layernorm.weight", hidden, &layer.post_norm.weight, /*dummy_value=*/1);
    table.Matrix(at + "mlp.gate_proj.weight", config_.intermediate_size, hidden, &layer.gate.weight);
    table.Matrix(at + "mlp.up_proj.weight", config_.intermediate_size, hidden, &layer.up.weight);
    table.Matrix(at + "mlp.down_proj.weight", hidden, config_.intermediate_size, &layer.down.weight, residual_gain);
  }
  table.Vector("model.norm.weight", hidden, &final_norm_.weight, /*dummy_value=*/1);
  if (config_.tie_embeddings) {
    table.Unused("lm_head.weight", "tie_word_embeddings is true");
  } else {
    table.Matrix("lm_head.weight", config_.vocab_size, hidden, &lm_head_);
  }
}

// Input and output may be the same.
void Brumby::RmsNorm(const Norm& norm, const float* input, float* output, int64_t num_rows, int64_t size) {
  kernels::RmsNorm({.x = input,
                    .y = output,
                    .weight = norm.weight.data(),
                    .num_rows = num_rows,
                    .size = size,
                    .epsilon = config_.norm_epsilon},
                   pool_);
}

void Brumby::ForwardLayer(const Layer& layer, int64_t layer_idx) {
  TransformerWorkspace& w = workspace_;
  const int64_t num_rows = w.num_rows();

  RmsNorm(layer.input_norm, w.x, w.normed, num_rows, config_.hidden_size);
  Multiply(layer.q, w.normed, w.q);
  Multiply(layer.k, w.normed, w.k);
  Multiply(layer.v, w.normed, w.v);
  Multiply(layer.g, w.normed, w.log_g);
  kernels::LogSigmoid(w.log_g, num_rows * config_.heads_kv, pool_);
  RmsNorm(layer.q_norm, w.q, w.q, num_rows * config_.heads_q, config_.head_dim);
  RmsNorm(layer.k_norm, w.k, w.k, num_rows * config_.heads_kv, config_.head_dim);
  Rotate(w.q, config_.heads_q);
  Rotate(w.k, config_.heads_kv);
  kernels::PowerRetention(layout_, w.LayerRows(layout_, layer_idx), w.retention_scratch(), pool_);
  MultiplyAdd(layer.o, w.y, w.x);

  RmsNorm(layer.post_norm, w.x, w.normed, num_rows, config_.hidden_size);
  Multiply(layer.gate, w.normed, w.mlp);
  Multiply(layer.up, w.normed, w.mlp_up);
  kernels::SiluMul(w.mlp, w.mlp_up, num_rows * config_.intermediate_size, pool_);
  MultiplyAdd(layer.down, w.mlp, w.x);
}

absl::Status Brumby::Forward(const StepBatch& batch, std::span<float> logits) {
  if (absl::Status status = workspace_.Begin(batch, embedding_, rope_, pool_); !status.ok()) return status;
  for (int64_t i = 0; i < config_.num_layers; ++i) ForwardLayer(layers_[i], i);
  const int64_t num_logits = workspace_.GatherLogitRows(pool_);
  RmsNorm(final_norm_, workspace_.normed, workspace_.normed, num_logits, config_.hidden_size);
  MultiplyHead(num_logits, logits.data());
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<Transformer> MakeBrumby(const ModelConfig& config, const kernels::RetentionLayout& layout,
                                        kernels::ThreadPool* pool) {
  return std::make_unique<Brumby>(config, layout, pool);
}

}  // namespace statehouse
