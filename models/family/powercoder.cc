// PowerCoder: StarCoder2 with power retention in place of attention (docs/retention.md, "Model families").
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

// Gates of dummy weights stay near 1, as those of trained ones do: log(sigmoid(6)) = -0.0025 per token.
constexpr float kDummyGateBias = 6.0f;

struct Layer {
  Norm input_norm;
  Linear q, k, v, g, o;
  Norm post_norm;
  Linear c_fc, c_proj;
};

class PowerCoder final : public Transformer {
 public:
  PowerCoder(const ModelConfig& config, const kernels::RetentionLayout& layout, kernels::ThreadPool* pool)
      : Transformer(config, layout, pool), layers_(config.num_layers) {}

  void DeclareTensors(TensorTable& table) override;
  absl::Status Forward(const StepBatch& batch, std::span<float> logits) override;

 private:
  void DeclareLinear(TensorTable& table, const std::string& name, int64_t outputs, int64_t inputs, Linear* linear,
                     float dummy_gain = 1);
  void DeclareNorm(TensorTable& table, const std::string& name, Norm* norm);
  void LayerNorm(const Norm& norm, const float* input, int64_t num_rows);
  void ForwardLayer(const Layer& layer, int64_t layer_idx);

  std::vector<Layer> layers_;
  Norm final_norm_;
};

void PowerCoder::DeclareLinear(TensorTable& table, const std::string& name, int64_t outputs, int64_t inputs,
                               Linear* linear, float dummy_gain) {
  table.Matrix(name + ".weight", outputs, inputs, &linear->weight, dummy_gain);
  if (config_.use_bias) table.Vector(name + ".bias", outputs, &linear->bias);
}

// Norms keep their biases even with use_bias: false.
void PowerCoder::DeclareNorm(TensorTable& table, const std::string& name, Norm* norm) {
  table.Vector(name + ".weight", config_.hidden_size, &norm->weight, /*dummy_value=*/1);
  table.Vector(name + ".bias", config_.hidden_size, &norm->bias);
}

void PowerCoder::DeclareTensors(TensorTable& table) {
  const int64_t hidden = config_.hidden_size;
  const int64_t q_width = int64_t{config_.heads_q} * config_.head_dim;
  const int64_t kv_width = int64_t{config_.heads_kv} * config_.head_dim;
  // Two additions per layer to the residual stream: keeps its variance near 1 over the depth.
  const float residual_gain = 1.0f / std::sqrt(2.0f * static_cast<float>(config_.num_layers));

  table.Matrix("model.embed_tokens.weight", config_.vocab_size, hidden, &embedding_).int8_mode = Int8Mode::kBF16;
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    Layer& layer = layers_[i];
    const std::string at = absl::StrCat("model.layers.", i, ".");
    DeclareNorm(table, at + "input_layernorm", &layer.input_norm);
    DeclareLinear(table, at + "self_attn.q_proj", q_width, hidden, &layer.q);
    DeclareLinear(table, at + "self_attn.k_proj", kv_width, hidden, &layer.k);
    DeclareLinear(table, at + "self_attn.v_proj", kv_width, hidden, &layer.v);
    table.Matrix(at + "self_attn.g_proj.weight", config_.heads_kv, hidden, &layer.g.weight).int8_mode =
        Int8Mode::kAsStored;
    if (config_.use_bias) table.Vector(at + "self_attn.g_proj.bias", config_.heads_kv, &layer.g.bias, kDummyGateBias);
    DeclareLinear(table, at + "self_attn.o_proj", hidden, q_width, &layer.o, residual_gain);
    DeclareNorm(table, at + "post_attention_layernorm", &layer.post_norm);
    DeclareLinear(table, at + "mlp.c_fc", config_.intermediate_size, hidden, &layer.c_fc);
    DeclareLinear(table, at + "mlp.c_proj", hidden, config_.intermediate_size, &layer.c_proj, residual_gain);
  }
  DeclareNorm(table, "model.norm", &final_norm_);
  table.Matrix("lm_head.weight", config_.vocab_size, hidden, &lm_head_).optional = config_.tie_embeddings;
}

// Into workspace_.normed, which may be the input too.
void PowerCoder::LayerNorm(const Norm& norm, const float* input, int64_t num_rows) {
  kernels::LayerNorm({.x = input,
                      .y = workspace_.normed,
                      .weight = norm.weight.data(),
                      .bias = norm.bias.data(),
                      .num_rows = num_rows,
                      .size = config_.hidden_size,
                      .epsilon = config_.norm_epsilon},
                     pool_);
}

void PowerCoder::ForwardLayer(const Layer& layer, int64_t layer_idx) {
  TransformerWorkspace& w = workspace_;
  const int64_t num_rows = w.num_rows();

  LayerNorm(layer.input_norm, w.x, num_rows);
  Multiply(layer.q, w.normed, w.q);
  Multiply(layer.k, w.normed, w.k);
  Multiply(layer.v, w.normed, w.v);
  Multiply(layer.g, w.normed, w.log_g);
  kernels::LogSigmoid(w.log_g, num_rows * config_.heads_kv, pool_);
  Rotate(w.q, config_.heads_q);
  Rotate(w.k, config_.heads_kv);
  kernels::PowerRetention(layout_, w.LayerRows(layout_, layer_idx), w.retention_scratch(), pool_);
  MultiplyAdd(layer.o, w.y, w.x);

  LayerNorm(layer.post_norm, w.x, num_rows);
  Multiply(layer.c_fc, w.normed, w.mlp);
  kernels::GeluTanh(w.mlp, num_rows * config_.intermediate_size, pool_);
  MultiplyAdd(layer.c_proj, w.mlp, w.x);
}

absl::Status PowerCoder::Forward(const StepBatch& batch, std::span<float> logits) {
  if (absl::Status status = workspace_.Begin(batch, embedding_, rope_, pool_); !status.ok()) return status;
  for (int64_t i = 0; i < config_.num_layers; ++i) ForwardLayer(layers_[i], i);
  const int64_t num_logits = workspace_.GatherLogitRows(pool_);
  LayerNorm(final_norm_, workspace_.normed, num_logits);
  MultiplyHead(num_logits, logits.data());
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<Transformer> MakePowerCoder(const ModelConfig& config, const kernels::RetentionLayout& layout,
                                            kernels::ThreadPool* pool) {
  return std::make_unique<PowerCoder>(config, layout, pool);
}

}  // namespace statehouse
