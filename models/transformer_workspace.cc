#include "models/transformer_workspace.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

// Arrays start on their own cache lines.
constexpr int64_t kAlignFloats = 32;

int64_t Aligned(int64_t floats) { return (floats + kAlignFloats - 1) / kAlignFloats * kAlignFloats; }

}  // namespace

absl::Status TransformerWorkspace::Reserve(const ModelConfig& config, const kernels::RetentionLayout& layout,
                                           int64_t max_rows, int64_t max_logit_rows, int num_threads) {
  max_rows = std::max({max_rows, max_rows_, int64_t{1}});
  max_logit_rows = std::max(max_logit_rows, max_logit_rows_);
  const int64_t q_width = int64_t{config.heads_q} * config.head_dim;
  const int64_t kv_width = int64_t{config.heads_kv} * config.head_dim;
  const bool gated_mlp = config.family == Family::kBrumby;
  const int64_t normed_rows = std::max(max_rows, max_logit_rows);
  const std::pair<float**, int64_t> arrays[] = {
      {&x, max_rows * config.hidden_size},
      {&normed, normed_rows * config.hidden_size},
      {&q, max_rows * q_width},
      {&k, max_rows * kv_width},
      {&v, max_rows * kv_width},
      {&log_g, max_rows * config.heads_kv},
      {&y, max_rows * q_width},
      {&mlp, max_rows * config.intermediate_size},
      {&mlp_up, gated_mlp ? max_rows * config.intermediate_size : 0},
      {&cos, max_rows * config.head_dim / 2},
      {&sin, max_rows * config.head_dim / 2},
  };
  int64_t floats = 0;
  for (const auto& [array, size] : arrays) floats += Aligned(size);
  kernels::AlignedBuffer buffer;
  if (!buffer.Allocate(floats * static_cast<int64_t>(sizeof(float)))) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for steps of ", max_rows,
                                                     " rows: ", floats * sizeof(float),
                                                     " bytes; set a smaller --max-num-batched-tokens"));
  }
  if (absl::Status status = retention_scratch_.Reserve(layout, max_rows, num_threads); !status.ok()) return status;
  buffer_ = std::move(buffer);
  float* next = buffer_.as<float>();
  for (const auto& [array, size] : arrays) {
    *array = next;
    next += Aligned(size);
  }
  positions_.resize(max_rows);
  rows_.resize(max_rows);
  max_rows_ = max_rows;
  max_logit_rows_ = max_logit_rows;
  hidden_ = config.hidden_size;
  heads_q_ = config.heads_q;
  heads_kv_ = config.heads_kv;
  head_dim_ = config.head_dim;
  return absl::OkStatus();
}

int64_t TransformerWorkspace::bytes() const {
  return buffer_.size() + retention_scratch_.bytes() +
         static_cast<int64_t>(positions_.size() * sizeof(positions_[0]) + rows_.size() * sizeof(rows_[0]));
}

absl::Status TransformerWorkspace::Begin(const StepBatch& batch, const kernels::PackedMatrix& embedding,
                                         const kernels::RopeFrequencies& rope, kernels::ThreadPool& pool) {
  num_rows_ = static_cast<int64_t>(batch.tokens.size());
  if (num_rows_ > max_rows_ || static_cast<int64_t>(batch.logit_rows.size()) > max_logit_rows_) {
    return absl::InternalError(absl::StrCat("a step of ", num_rows_, " rows and ", batch.logit_rows.size(),
                                            " logit rows; reserved were ", max_rows_, " and ", max_logit_rows_));
  }
  batch_ = batch;
  for (const StepSequence& sequence : batch.sequences) {
    for (int32_t i = 0; i < sequence.num_rows; ++i) positions_[sequence.first_row + i] = sequence.position + i;
  }
  pool.Run(num_rows_, [&](int64_t row, int) {
    embedding.UnpackRow(batch.tokens[row], x + row * hidden_);
    rope.Angles(positions_[row], cos + row * (head_dim_ / 2), sin + row * (head_dim_ / 2));
  });
  return absl::OkStatus();
}

std::span<const kernels::RetentionRows> TransformerWorkspace::LayerRows(const kernels::RetentionLayout& layout,
                                                                        int64_t layer_idx) {
  const size_t count = batch_.sequences.size();
  for (size_t i = 0; i < count; ++i) {
    const StepSequence& sequence = batch_.sequences[i];
    const int64_t row = sequence.first_row;
    rows_[i] = {.q = q + row * heads_q_ * head_dim_,
                .k = k + row * heads_kv_ * head_dim_,
                .v = v + row * heads_kv_ * head_dim_,
                .log_g = log_g + row * heads_kv_,
                .y = y + row * heads_q_ * head_dim_,
                .memory = sequence.memory + layer_idx * layout.layer_floats(),
                .position = sequence.position,
                .num_rows = sequence.num_rows};
  }
  return {rows_.data(), count};
}

int64_t TransformerWorkspace::GatherLogitRows(kernels::ThreadPool& pool) {
  const auto rows = batch_.logit_rows;
  pool.Run(static_cast<int64_t>(rows.size()),
           [&](int64_t i, int) { std::memcpy(normed + i * hidden_, x + rows[i] * hidden_, hidden_ * sizeof(float)); });
  return static_cast<int64_t>(rows.size());
}

}  // namespace statehouse
