// The working memory of one forward pass: every activation of a step, in one block made by Reserve().
// Row i of each array belongs to row i of the step. Thread-safety: the engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/math/aligned_buffer.h"
#include "kernels/matmul/matmul.h"
#include "kernels/parallel/thread_pool.h"
#include "kernels/power_retention/power_retention.h"
#include "kernels/rope/rope.h"
#include "models/config.h"
#include "models/model.h"  // StepBatch

namespace statehouse {

class TransformerWorkspace {
 public:
  // Grows, never shrinks. RESOURCE_EXHAUSTED says how many bytes were asked for.
  absl::Status Reserve(const ModelConfig& config, const kernels::RetentionLayout& layout, int64_t max_rows,
                       int64_t max_logit_rows, int num_threads);
  int64_t bytes() const;

  // Takes in a step: looks up the embeddings (into x) and forms the RoPE angles of every row.
  // INTERNAL if the step is larger than what was reserved.
  absl::Status Begin(const StepBatch& batch, const kernels::PackedMatrix& embedding,
                     const kernels::RopeFrequencies& rope, kernels::ThreadPool& pool);
  // The step's sequences as one layer's retention call sees them.
  std::span<const kernels::RetentionRows> LayerRows(const kernels::RetentionLayout& layout, int64_t layer_idx);
  // Copies the rows whose logits are wanted from x to the front of normed; returns how many.
  int64_t GatherLogitRows(kernels::ThreadPool& pool);

  int64_t num_rows() const { return num_rows_; }
  kernels::RetentionScratch& retention_scratch() { return retention_scratch_; }

  float* x = nullptr;       // [num_rows, hidden] residual stream
  float* normed = nullptr;  // [num_rows, hidden]
  float* q = nullptr;       // [num_rows, Hq, d]
  float* k = nullptr;       // [num_rows, Hk, d]
  float* v = nullptr;       // [num_rows, Hk, d]
  float* log_g = nullptr;   // [num_rows, Hk]
  float* y = nullptr;       // [num_rows, Hq, d]
  float* mlp = nullptr;     // [num_rows, intermediate]
  float* mlp_up = nullptr;  // [num_rows, intermediate]; only for gated MLPs
  float* cos = nullptr;     // [num_rows, d / 2]
  float* sin = nullptr;     // [num_rows, d / 2]

 private:
  int64_t max_rows_ = 0;
  int64_t max_logit_rows_ = 0;
  int64_t hidden_ = 0;
  int heads_q_ = 0;
  int heads_kv_ = 0;
  int head_dim_ = 0;
  kernels::AlignedBuffer buffer_;
  kernels::RetentionScratch retention_scratch_;

  int64_t num_rows_ = 0;
  StepBatch batch_;
  std::vector<int64_t> positions_;            // [max_rows]
  std::vector<kernels::RetentionRows> rows_;  // [max_rows]; the first batch_.sequences.size() are in use
};

}  // namespace statehouse
