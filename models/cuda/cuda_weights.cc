#include "models/cuda/cuda_weights.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"
#include "models/element.h"

namespace statehouse {
namespace {

constexpr int64_t kStagingBytes = int64_t{64} << 20;
// Gates of dummy weights stay near 1, as those of trained ones do: log(sigmoid(6)) = -0.0025 per token.
constexpr float kDummyGateBias = 6.0f;

int64_t QWidth(const ModelConfig& config) { return int64_t{config.heads_q} * config.head_dim; }
int64_t KvWidth(const ModelConfig& config) { return int64_t{config.heads_kv} * config.head_dim; }

}  // namespace

absl::Status CudaWeightMatrix::AllocateOnce() {
  if (buffer_.bytes() > 0) return absl::OkStatus();
  const size_t bytes = static_cast<size_t>(outputs_) * inputs_ * (is_bf16_ ? 2 : 4);
  if (absl::Status status = buffer_.Allocate(bytes); !status.ok()) return status;
  return kernels::CudaStatus(cudaMemset(buffer_.as<void>(), 0, bytes), "cudaMemset of weights");
}

absl::Status CudaMatrixSlice::Accept(const kernels::SourceMatrix& source, kernels::ThreadPool& pool) {
  CudaWeightMatrix& whole = *whole_;
  if (absl::Status status = whole.AllocateOnce(); !status.ok()) return status;
  if (absl::Status status = whole.staging_->Allocate(kStagingBytes); !status.ok()) return status;
  const int64_t row_bytes = source.cols * (whole.is_bf16_ ? 2 : 4);
  const int64_t rows_at_once = std::max<int64_t>(1, kStagingBytes / row_bytes);
  if (row_bytes > kStagingBytes) return absl::ResourceExhaustedError("a row of weights is larger than 64 MB");
  std::atomic<int64_t> bad_row{-1};  // any of them
  for (int64_t first = 0; first < source.rows; first += rows_at_once) {
    const int64_t count = std::min(rows_at_once, source.rows - first);
    char* const staged = whole.staging_->as<char>();
    pool.Run(count, [&](int64_t row, int) {
      const bool all_finite = CopyElements(source.data, source.type, (first + row) * source.cols, source.cols,
                                           whole.is_bf16_, staged + row * row_bytes);
      if (!all_finite) bad_row.store(first + row, std::memory_order_relaxed);
    });
    if (bad_row.load() >= 0) {
      return absl::InvalidArgumentError(absl::StrCat("row ", bad_row.load(),
                                                     " holds a NaN, an infinity or a value too large for ",
                                                     whole.is_bf16_ ? "bf16" : "f32"));
    }
    const absl::Status status = whole.buffer_.Upload(staged, count * row_bytes, (first_row_ + first) * row_bytes);
    if (!status.ok()) return status;
  }
  filled_ = true;
  bytes_ = source.rows * row_bytes;
  return absl::OkStatus();
}

std::vector<float>* CudaWeightVector::Part(int64_t offset, int64_t size) {
  parts_.push_back({.offset = offset, .size = size, .values = {}});
  return &parts_.back().values;
}

absl::Status CudaWeightVector::Upload(int64_t size) {
  std::vector<float> whole(size);
  bool any = false;
  for (const PartOf& part : parts_) {
    any = any || !part.values.empty();
    std::copy(part.values.begin(), part.values.end(), whole.begin() + part.offset);
  }
  parts_.clear();
  if (!any) return absl::OkStatus();
  if (absl::Status status = buffer_.Allocate(size * sizeof(float)); !status.ok()) return status;
  return buffer_.Upload(whole.data(), size * sizeof(float));
}

CudaWeights::CudaWeights(const ModelConfig& config) : layers(config.num_layers) {}

int64_t CudaWeights::HeadsWidth(const ModelConfig& config) {
  constexpr int64_t kMultiple = 64;
  return (QWidth(config) + 2 * KvWidth(config) + config.heads_kv + kMultiple - 1) / kMultiple * kMultiple;
}

void CudaWeights::Declare(const ModelConfig& config, bool is_bf16, TensorTable* table) {
  const int64_t hidden = config.hidden_size;
  embedding.Shape(config.vocab_size, hidden, is_bf16, &staging_);
  table->Sink("model.embed_tokens.weight", config.vocab_size, hidden, embedding.Slice(0));
  for (int64_t i = 0; i < config.num_layers; ++i) DeclareLayer(config, i, is_bf16, table);
  table->Vector("model.norm.weight", hidden, final_norm.Part(0, hidden), /*dummy_value=*/1);
  if (config.family == Family::kPowerCoder) {
    table->Vector("model.norm.bias", hidden, final_norm_bias.Part(0, hidden));
  }
  if (config.tie_embeddings && config.family == Family::kBrumby) {
    table->Unused("lm_head.weight", "tie_word_embeddings is true");
    return;
  }
  lm_head.Shape(config.vocab_size, hidden, is_bf16, &staging_);
  table->Sink("lm_head.weight", config.vocab_size, hidden, lm_head.Slice(0)).optional = config.tie_embeddings;
}

void CudaWeights::DeclareLayer(const ModelConfig& config, int64_t layer_idx, bool is_bf16, TensorTable* table) {
  const bool powercoder = config.family == Family::kPowerCoder;
  const bool biased = powercoder && config.use_bias;
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t q_width = QWidth(config), kv_width = KvWidth(config);
  // Two additions per layer to the residual stream: keeps its variance near 1 over the depth.
  const float residual_gain = 1.0f / std::sqrt(2.0f * static_cast<float>(config.num_layers));
  CudaLayerWeights& layer = layers[layer_idx];
  const std::string at = absl::StrCat("model.layers.", layer_idx, ".");
  const auto linear = [&](const std::string& name, int64_t outputs, int64_t inputs, CudaWeightMatrix& to,
                          CudaWeightVector& bias, int64_t first_row, float gain, float dummy_bias) {
    table->Sink(at + name + ".weight", outputs, inputs, to.Slice(first_row), gain);
    if (biased) table->Vector(at + name + ".bias", outputs, bias.Part(first_row, outputs), dummy_bias);
  };
  const auto norm = [&](const std::string& name, int64_t size, CudaWeightVector& weight, CudaWeightVector* bias) {
    table->Vector(at + name + ".weight", size, weight.Part(0, size), /*dummy_value=*/1);
    if (bias != nullptr) table->Vector(at + name + ".bias", size, bias->Part(0, size));
  };
  layer.heads.Shape(HeadsWidth(config), hidden, is_bf16, &staging_);
  layer.o.Shape(hidden, q_width, is_bf16, &staging_);
  layer.up.Shape(powercoder ? inner : 2 * inner, hidden, is_bf16, &staging_);
  layer.down.Shape(hidden, inner, is_bf16, &staging_);

  norm("input_layernorm", hidden, layer.input_norm, powercoder ? &layer.input_norm_bias : nullptr);
  linear("self_attn.q_proj", q_width, hidden, layer.heads, layer.heads_bias, 0, 1, 0);
  linear("self_attn.k_proj", kv_width, hidden, layer.heads, layer.heads_bias, q_width, 1, 0);
  linear("self_attn.v_proj", kv_width, hidden, layer.heads, layer.heads_bias, q_width + kv_width, 1, 0);
  linear("self_attn.g_proj", config.heads_kv, hidden, layer.heads, layer.heads_bias, q_width + 2 * kv_width, 1,
         kDummyGateBias);
  linear("self_attn.o_proj", hidden, q_width, layer.o, layer.o_bias, 0, residual_gain, 0);
  if (!powercoder) {
    norm("self_attn.q_norm", config.head_dim, layer.q_norm, nullptr);
    norm("self_attn.k_norm", config.head_dim, layer.k_norm, nullptr);
  }
  norm("post_attention_layernorm", hidden, layer.post_norm, powercoder ? &layer.post_norm_bias : nullptr);
  if (powercoder) {
    linear("mlp.c_fc", inner, hidden, layer.up, layer.up_bias, 0, 1, 0);
    linear("mlp.c_proj", hidden, inner, layer.down, layer.down_bias, 0, residual_gain, 0);
  } else {
    linear("mlp.gate_proj", inner, hidden, layer.up, layer.up_bias, 0, 1, 0);
    linear("mlp.up_proj", inner, hidden, layer.up, layer.up_bias, inner, 1, 0);
    linear("mlp.down_proj", hidden, inner, layer.down, layer.down_bias, 0, residual_gain, 0);
  }
}

absl::Status CudaWeights::Finish(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  absl::Status status;
  const auto upload = [&status](CudaWeightVector& vector, int64_t size) {
    if (status.ok()) status = vector.Upload(size);
  };
  upload(final_norm, hidden);
  upload(final_norm_bias, hidden);
  for (CudaLayerWeights& layer : layers) {
    for (CudaWeightVector* vector : {&layer.input_norm, &layer.input_norm_bias, &layer.post_norm, &layer.post_norm_bias,
                                     &layer.o_bias, &layer.down_bias}) {
      upload(*vector, hidden);
    }
    upload(layer.heads_bias, HeadsWidth(config));
    upload(layer.up_bias, config.intermediate_size);
    upload(layer.q_norm, config.head_dim);
    upload(layer.k_norm, config.head_dim);
  }
  staging_.Free();
  return status;
}

int64_t CudaWeights::bytes() const {
  int64_t bytes = embedding.bytes() + lm_head.bytes() + final_norm.bytes() + final_norm_bias.bytes();
  for (const CudaLayerWeights& layer : layers) {
    for (const CudaWeightMatrix* matrix : {&layer.heads, &layer.o, &layer.up, &layer.down}) bytes += matrix->bytes();
    for (const CudaWeightVector* vector :
         {&layer.input_norm, &layer.input_norm_bias, &layer.post_norm, &layer.post_norm_bias, &layer.heads_bias,
          &layer.q_norm, &layer.k_norm, &layer.o_bias, &layer.up_bias, &layer.down_bias}) {
      bytes += vector->bytes();
    }
  }
  return bytes;
}

}  // namespace statehouse
