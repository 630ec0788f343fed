// One synthetic sequence and ways to run it through the operation, for the power-retention tests.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/power_retention/power_retention.h"
#include "tests/kernels/kernel_test_support.h"

namespace statehouse::kernels {

// Every form that a head's memory can have, and sizes that fit no tile.
inline constexpr RetentionShape kShapes[] = {
    {.heads_q = 6, .heads_kv = 2, .head_dim = 20, .chunk = 16, .switch_over = 0},
    {.heads_q = 3, .heads_kv = 1, .head_dim = 33, .chunk = 24, .switch_over = 72},
    {.heads_q = 1, .heads_kv = 1, .head_dim = 64, .chunk = 64, .switch_over = 64},
    {.heads_q = 2, .heads_kv = 1, .head_dim = 9, .degree = 4, .chunk = 20, .switch_over = 40},
    {.heads_q = 13, .heads_kv = 1, .head_dim = 5, .chunk = 7, .switch_over = kNeverSwitch, .max_tail_tokens = 300},
};

struct RetentionProblem {
  RetentionShape shape;
  int64_t t = 0;
  std::vector<float> Q, K, V, log_G;  // log_G empty: no gates
};

inline RetentionProblem RandomProblem(std::mt19937& rng, const RetentionShape& shape, int64_t t,
                                      float lowest_gate = -0.5f) {
  RetentionProblem problem;
  problem.shape = shape;
  problem.t = t;
  problem.Q = Normals(rng, t * shape.heads_q * shape.head_dim);
  problem.K = Normals(rng, t * shape.heads_kv * shape.head_dim);
  problem.V = Normals(rng, t * shape.heads_kv * shape.head_dim);
  if (lowest_gate < 0) problem.log_G = Uniforms(rng, t * shape.heads_kv, lowest_gate, 0);
  return problem;
}

inline std::vector<double> QuadraticReference(const RetentionProblem& problem) {
  const RetentionShape& shape = problem.shape;
  std::vector<double> Y(problem.t * shape.heads_q * shape.head_dim);
  PowerRetentionQuadraticRef(
      {.Q = problem.Q.data(),
       .K = problem.K.data(),
       .V = problem.V.data(),
       .log_G = problem.log_G.empty() ? nullptr : problem.log_G.data(),
       .Y = Y.data(),
       .t = problem.t,
       .heads_q = shape.heads_q,
       .heads_kv = shape.heads_kv,
       .head_dim = shape.head_dim,
       .degree = shape.degree,
       .scale = shape.scale == 0 ? 1 / std::sqrt(static_cast<double>(shape.head_dim)) : shape.scale});
  return Y;
}

// A sequence's memory and how far it is.
class RetentionSequence {
 public:
  RetentionSequence(const RetentionShape& shape, ThreadPool& pool)
      : layout_(*RetentionLayout::Make(shape)), memory_(layout_.layer_floats(), 0.0f), pool_(pool) {
    EXPECT_TRUE(scratch_.Reserve(layout_, 1 << 16, pool.num_threads()).ok());
  }

  const RetentionLayout& layout() const { return layout_; }
  std::vector<float>& memory() { return memory_; }
  int64_t position() const { return position_; }
  void TakeBackTo(int64_t position) { position_ = position; }

  // Runs rows [position, position + count) of the problem into Y, in one call where the switch-over allows, as the
  // engine would.
  void Step(const RetentionProblem& problem, int64_t count, std::vector<float>& Y) {
    const RetentionShape& shape = layout_.shape();
    while (count > 0) {
      if (layout_.has_state() && position_ == shape.switch_over && position_ > 0) {
        for (int head = 0; head < shape.heads_kv; ++head) SwitchOver(layout_, memory_.data(), head, scratch_, pool_);
      }
      const bool before = position_ < shape.switch_over;
      const int64_t rows = before ? std::min(count, shape.switch_over - position_) : count;
      const RetentionRows call = Rows(problem, rows, Y);
      PowerRetention(layout_, std::span(&call, 1), scratch_, pool_);
      position_ += rows;
      count -= rows;
    }
  }

  RetentionRows Rows(const RetentionProblem& problem, int64_t rows, std::vector<float>& Y) {
    const RetentionShape& shape = layout_.shape();
    const int64_t q = position_ * shape.heads_q * shape.head_dim;
    const int64_t kv = position_ * shape.heads_kv * shape.head_dim;
    return {.q = problem.Q.data() + q,
            .k = problem.K.data() + kv,
            .v = problem.V.data() + kv,
            .log_g = problem.log_G.empty() ? nullptr : problem.log_G.data() + position_ * shape.heads_kv,
            .y = Y.data() + q,
            .memory = memory_.data(),
            .position = position_,
            .num_rows = rows};
  }

 private:
  RetentionLayout layout_;
  std::vector<float> memory_;
  RetentionScratch scratch_;
  ThreadPool& pool_;
  int64_t position_ = 0;
};

// The whole problem from an empty memory, in calls of `piece` rows.
inline std::vector<float> RunInPieces(const RetentionProblem& problem, int64_t piece, ThreadPool& pool) {
  std::vector<float> Y(problem.Q.size());
  RetentionSequence sequence(problem.shape, pool);
  while (sequence.position() < problem.t) sequence.Step(problem, std::min(piece, problem.t - sequence.position()), Y);
  return Y;
}

}  // namespace statehouse::kernels
