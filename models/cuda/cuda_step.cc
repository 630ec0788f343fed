// CudaTransformer: what a step queues, from tokens to logits.
#include <algorithm>
#include <array>

#include "kernels/activation/cuda/activation.h"
#include "kernels/embedding/cuda/embedding.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/norm/cuda/norm.h"
#include "kernels/rope/cuda/heads.h"
#include "models/cuda/cuda_transformer.h"

namespace statehouse {

absl::Status CudaTransformer::QueueStep() {
  CudaWorkspace& w = workspace_;
  joins_ends_ = JoinsEnds(w.num_rows());
  absl::Status status = kernels::CudaEmbed({.table = weights_.embedding.data(),
                                            .is_bf16 = options_.is_bf16,
                                            .tokens = w.tokens,
                                            .chosen = w.chosen,
                                            .out = w.x,
                                            .num_rows = w.num_rows(),
                                            .size = config_.hidden_size},
                                           stream_.get());
  if (!status.ok()) return status;
  status = kernels::CudaRopeAngles(w.positions, turns_.as<kernels::DoubleDouble>(), w.angles, w.num_rows(),
                                   config_.head_dim, stream_.get());
  if (!status.ok()) return status;
  const float* bias_before = nullptr;
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    if (status = QueueLayer(i, bias_before); !status.ok()) return status;
    bias_before = joins_ends_ ? nullptr : weights_.layers[i].down_bias.data();
  }
  return QueueHead(bias_before);
}

// `bias_before`: of the product that was added to the residual stream last.
absl::Status CudaTransformer::QueueLayer(int64_t layer_idx, const float* bias_before) {
  CudaWorkspace& w = workspace_;
  const CudaLayerWeights& layer = weights_.layers[layer_idx];
  kernels::CudaNormArgs norm = {.x = w.x,
                                .x_bias = bias_before,
                                .y = w.normed,
                                .y_is_bf16 = options_.is_bf16,
                                .weight = layer.input_norm.data(),
                                .bias = layer.input_norm_bias.data(),
                                .num_rows = w.num_rows(),
                                .size = config_.hidden_size,
                                .epsilon = config_.norm_epsilon,
                                .is_rms = config_.family == Family::kBrumby};
  absl::Status status = MultiplyNormed(norm, layer.heads, w.heads, {});
  if (!status.ok()) return status;
  if (status = QueueRetention(layer_idx); !status.ok()) return status;
  if (status = Multiply(layer.o, w.y, w.x, w.num_rows(), {.bias = layer.o_bias.data(), .add = true}); !status.ok()) {
    return status;
  }
  norm.x_bias = joins_ends_ ? nullptr : layer.o_bias.data();
  norm.weight = layer.post_norm.data();
  norm.bias = layer.post_norm_bias.data();
  return QueueMlp(layer, norm);
}

// Where retention does not take heads as the product leaves them, they are made ready first.
absl::Status CudaTransformer::QueueRetention(int64_t layer_idx) {
  CudaWorkspace& w = workspace_;
  const CudaLayerWeights& layer = weights_.layers[layer_idx];
  const kernels::SlotHeads heads = {.bias = layer.heads_bias.data(),
                                    .q_norm = layer.q_norm.data(),
                                    .k_norm = layer.k_norm.data(),
                                    .angles = w.angles,
                                    .epsilon = config_.norm_epsilon};
  if (!plan_.takes_raw_heads()) {
    const absl::Status status = kernels::CudaPrepareHeads({.x = w.heads,
                                                           .bias = heads.bias,
                                                           .q_norm = heads.q_norm,
                                                           .k_norm = heads.k_norm,
                                                           .angles = heads.angles,
                                                           .num_rows = w.num_rows(),
                                                           .row_stride = layer.heads.outputs(),
                                                           .heads_q = config_.heads_q,
                                                           .heads_kv = config_.heads_kv,
                                                           .head_dim = config_.head_dim,
                                                           .epsilon = heads.epsilon},
                                                          stream_.get());
    if (!status.ok()) return status;
  }
  const int64_t q_width = int64_t{config_.heads_q} * config_.head_dim;
  const int64_t kv_width = int64_t{config_.heads_kv} * config_.head_dim;
  const kernels::SlotRetentionArgs args = {.q = w.heads,
                                           .k = w.heads + q_width,
                                           .v = w.heads + q_width + kv_width,
                                           .log_g = w.heads + q_width + 2 * kv_width,
                                           .row_stride = CudaWeights::HeadsWidth(config_),
                                           .heads = plan_.takes_raw_heads() ? heads : kernels::SlotHeads(),
                                           .y = w.y,
                                           .y_is_bf16 = options_.is_bf16,
                                           .layer_idx = layer_idx,
                                           .segments = w.segments,
                                           .tiles = w.tiles,
                                           .folds = w.folds};
  return retention_.Run(plan_, args, stream_.get());
}

absl::Status CudaTransformer::QueueMlp(const CudaLayerWeights& layer, const kernels::CudaNormArgs& norm) {
  CudaWorkspace& w = workspace_;
  const bool gated = config_.family == Family::kBrumby;
  const ProductEnd up = {.bias = layer.up_bias.data(), .y_is_bf16 = options_.is_bf16, .gelu = !gated};
  absl::Status status = MultiplyNormed(norm, layer.up, w.mlp, up);
  if (!status.ok()) return status;
  const kernels::CudaActivationArgs activation = {.x = w.mlp,
                                                  .bias = layer.up_bias.data(),
                                                  .y = gated ? w.gated : w.mlp,
                                                  .is_bf16 = options_.is_bf16,
                                                  .num_rows = w.num_rows(),
                                                  .size = config_.intermediate_size};
  if (gated) {
    status = kernels::CudaSiluMul(activation, stream_.get());
  } else if (!joins_ends_) {
    status = kernels::CudaGeluTanh(activation, stream_.get());
  }
  if (!status.ok()) return status;
  return Multiply(layer.down, activation.y, w.x, w.num_rows(), {.bias = layer.down_bias.data(), .add = true});
}

absl::Status CudaTransformer::QueueHead(const float* bias_before) {
  CudaWorkspace& w = workspace_;
  if (w.num_logits() == 0) return absl::OkStatus();
  const absl::Status status = kernels::CudaNorm({.x = w.x,
                                                 .x_bias = bias_before,
                                                 .rows = w.logit_rows,
                                                 .y = w.normed,
                                                 .y_is_bf16 = options_.is_bf16,
                                                 .weight = weights_.final_norm.data(),
                                                 .bias = weights_.final_norm_bias.data(),
                                                 .num_rows = w.num_logits(),
                                                 .size = config_.hidden_size,
                                                 .epsilon = config_.norm_epsilon,
                                                 .is_rms = config_.family == Family::kBrumby},
                                                stream_.get());
  if (!status.ok()) return status;
  const CudaWeightMatrix& head = weights_.lm_head.bytes() > 0 ? weights_.lm_head : weights_.embedding;
  return Multiply(head, w.normed, w.logits, w.num_logits(), {});
}

bool CudaTransformer::JoinsEnds(int64_t rows) const {
  if (!options_.is_bf16 || options_.deterministic) return false;
  const int64_t q_width = int64_t{config_.heads_q} * config_.head_dim;
  return std::ranges::all_of(std::array{config_.hidden_size, config_.intermediate_size, q_width}, [&](int64_t inputs) {
    return kernels::HasFewRowsKernel({.rows = rows, .inputs = inputs});
  });
}

bool CudaTransformer::JoinsNorms(int64_t rows) const {
  const float* const any = weights_.final_norm.data();
  return JoinsEnds(rows) &&
         kernels::HasFewRowsKernel({.rows = rows, .inputs = config_.hidden_size, .norm = {.weight = any}});
}

absl::Status CudaTransformer::MultiplyNormed(const kernels::CudaNormArgs& norm, const CudaWeightMatrix& weights,
                                             void* y, const ProductEnd& end) {
  const int64_t rows = norm.num_rows;
  if (!JoinsNorms(rows)) {
    if (absl::Status status = kernels::CudaNorm(norm, stream_.get()); !status.ok()) return status;
    return Multiply(weights, norm.y, y, rows, end);
  }
  kernels::CudaFewRowsArgs args = FewRows(weights, norm.x, y, rows, end);
  args.norm = {.weight = norm.weight, .bias = norm.bias, .epsilon = norm.epsilon, .is_rms = norm.is_rms};
  return kernels::CudaMultiplyFewRows(args, stream_.get());
}

kernels::CudaFewRowsArgs CudaTransformer::FewRows(const CudaWeightMatrix& weights, const void* x, void* y, int64_t rows,
                                                  const ProductEnd& end) {
  return {.weights = weights.data(),
          .x = x,
          .y = y,
          .bias = end.bias,
          .y_is_bf16 = end.y_is_bf16,
          .add = end.add,
          .gelu = end.gelu,
          .rows = rows,
          .outputs = weights.outputs(),
          .inputs = weights.inputs()};
}

absl::Status CudaTransformer::Multiply(const CudaWeightMatrix& weights, const void* x, void* y, int64_t rows,
                                       const ProductEnd& end) {
  if (JoinsEnds(rows)) return kernels::CudaMultiplyFewRows(FewRows(weights, x, y, rows, end), stream_.get());
  return matmul_.Run({.weights = weights.data(),
                      .x = x,
                      .y = y,
                      .y_is_bf16 = end.y_is_bf16,
                      .rows = rows,
                      .outputs = weights.outputs(),
                      .inputs = weights.inputs(),
                      .add = end.add});
}

}  // namespace statehouse
