// What the model families share: weights' bookkeeping, working memory, the slot's layout, the switch-over. A family
// adds the names of its tensors and the forward pass (family/*.cc). Thread-safety: as Model.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/matmul/matmul.h"
#include "kernels/norm/norm.h"
#include "kernels/rope/rope.h"
#include "models/model.h"
#include "models/tensor_table.h"
#include "models/transformer_workspace.h"

namespace statehouse {

// A linear layer: y = x Wᵀ + b.
struct Linear {
  kernels::PackedMatrix weight;  // [outputs, inputs]
  std::vector<float> bias;       // [outputs] or empty
};

// A layer or RMS norm.
struct Norm {
  std::vector<float> weight;  // [size]
  std::vector<float> bias;    // [size] or empty
};

class Transformer : public Model {
 public:
  const ModelConfig& config() const final { return config_; }
  const kernels::RetentionLayout& retention() const final { return layout_; }
  int64_t weight_bytes() const final { return weight_bytes_; }
  int64_t step_weight_bytes() const final { return weight_bytes_ - (lm_head_.rows() > 0 ? embedding_.bytes() : 0); }
  int64_t num_parameters() const final { return num_parameters_; }
  kernels::WeightType weight_type() const final { return weight_type_; }
  uint64_t fingerprint() const final { return fingerprint_; }
  absl::Status Reserve(int64_t max_rows, int64_t max_logit_rows) final;
  int64_t workspace_bytes() const final { return workspace_.bytes(); }
  void SwitchOver(float* memory, int64_t unit) final;

  // --- loading (model_loader.cc) ---
  // The family's tensors, with destinations in this object.
  virtual void DeclareTensors(TensorTable& table) = 0;
  // After every destination is filled. `weights_hash` stands for the weights' names, shapes and stored bytes.
  void FinishLoading(const TensorTable& table, uint64_t weights_hash);

 protected:
  Transformer(const ModelConfig& config, const kernels::RetentionLayout& layout, kernels::ThreadPool* pool);

  // Shorthands in which a forward pass is written; rows = all rows of the step.
  void Multiply(const Linear& linear, const float* input, float* output) { Run(linear, input, output, false); }
  void MultiplyAdd(const Linear& linear, const float* input, float* output) { Run(linear, input, output, true); }
  void Rotate(float* heads, int num_heads);
  // Final logits of `num_rows` rows of workspace_.normed.
  void MultiplyHead(int64_t num_rows, float* logits);
  const kernels::PackedMatrix& head() const { return lm_head_.rows() > 0 ? lm_head_ : embedding_; }

  const ModelConfig config_;
  const kernels::RetentionLayout layout_;
  kernels::ThreadPool& pool_;
  const kernels::RopeFrequencies rope_;
  kernels::PackedMatrix embedding_;  // [vocab, hidden]
  kernels::PackedMatrix lm_head_;    // [vocab, hidden], or empty: the embedding is the head
  TransformerWorkspace workspace_;

 private:
  void Run(const Linear& linear, const float* input, float* output, bool add);

  int64_t weight_bytes_ = 0;
  int64_t num_parameters_ = 0;
  kernels::WeightType weight_type_ = kernels::WeightType::kF32;
  uint64_t fingerprint_ = 0;
};

// Makes a family's model without weights.
std::unique_ptr<Transformer> MakePowerCoder(const ModelConfig& config, const kernels::RetentionLayout& layout,
                                            kernels::ThreadPool* pool);
std::unique_ptr<Transformer> MakeBrumby(const ModelConfig& config, const kernels::RetentionLayout& layout,
                                        kernels::ThreadPool* pool);

}  // namespace statehouse
