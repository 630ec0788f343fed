// Power retention in chunks as a plain program computes it: pairs of rows within chunks, a state across them. Sums are
// in float32; what products take, and y, may be rounded to 16 bits. The yardstick of kernels that sum through a state.
// Degree 2.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "tests/kernels/retention_fixture.h"

namespace statehouse::kernels {

using RoundFunction = float (*)(float);

class PlainChunkedHead {
 public:
  PlainChunkedHead(const RetentionProblem& problem, int head_kv, RoundFunction round)
      : problem_(problem),
        round_(round),
        kv_(head_kv),
        d_(problem.shape.head_dim),
        scale_(problem.shape.scale == 0 ? 1 / std::sqrt(static_cast<float>(d_)) : problem.shape.scale),
        S_(int64_t{d_} * (d_ + 1) / 2 * d_),
        z_(int64_t{d_} * (d_ + 1) / 2) {}

  // Rows [begin, end), a chunk; then they are folded.
  void Run(int64_t begin, int64_t end, std::vector<float>& y) {
    std::vector<float> sums;
    double sum = 0;
    for (int64_t t = begin; t < end; ++t) {
      if (!problem_.log_G.empty()) sum += problem_.log_G[t * heads_kv() + kv_];
      sums.push_back(static_cast<float>(sum));
    }
    before_ = S_;
    for (float& x : before_) x = round_(x);
    const int group = problem_.shape.heads_q / heads_kv();
    for (int64_t t = begin; t < end; ++t) {
      for (int head = kv_ * group; head < (kv_ + 1) * group; ++head) Answer(t, head, begin, sums, y);
    }
    const float decay = std::exp(sums.back());
    for (float& x : S_) x *= decay;
    for (float& x : z_) x *= decay;
    for (int64_t t = begin; t < end; ++t) Fold(t, std::exp(sums.back() - sums[t - begin]));
  }

 private:
  int heads_kv() const { return problem_.shape.heads_kv; }
  const float* Row(const std::vector<float>& rows, int64_t t) const {
    return rows.data() + (t * heads_kv() + kv_) * d_;
  }

  void Answer(int64_t t, int head, int64_t begin, const std::vector<float>& sums, std::vector<float>& y) const {
    const float* q = problem_.Q.data() + (t * problem_.shape.heads_q + head) * d_;
    std::vector<float> num(d_);
    float den = 0;
    int64_t pair = 0;
    for (int i = 0; i < d_; ++i) {
      for (int j = i; j < d_; ++j, ++pair) {
        const float phi = q[i] * q[j], taken = round_(phi);
        den += phi * z_[pair];
        const float* row = before_.data() + pair * d_;
        for (int c = 0; c < d_; ++c) num[c] += taken * row[c];
      }
    }
    const float factor = scale_ * scale_ * std::exp(sums[t - begin]);
    den *= factor;
    for (float& x : num) x *= factor;
    for (int64_t j = begin; j <= t; ++j) {
      float score = 0;
      for (int i = 0; i < d_; ++i) score += q[i] * Row(problem_.K, j)[i];
      const float weight = scale_ * score * (scale_ * score) * std::exp(sums[t - begin] - sums[j - begin]);
      den += weight;
      const float taken = round_(weight);
      for (int c = 0; c < d_; ++c) num[c] += taken * Row(problem_.V, j)[c];
    }
    for (int c = 0; c < d_; ++c) y[(t * problem_.shape.heads_q + head) * d_ + c] = den > 0 ? round_(num[c] / den) : 0;
  }

  void Fold(int64_t t, float factor) {
    const float *k = Row(problem_.K, t), *v = Row(problem_.V, t);
    std::vector<float> weighted(d_);
    for (int c = 0; c < d_; ++c) weighted[c] = round_(factor * v[c]);
    int64_t pair = 0;
    for (int i = 0; i < d_; ++i) {
      for (int j = i; j < d_; ++j, ++pair) {
        const float phi = k[i] * k[j], count = i == j ? 1 : 2, taken = count * round_(phi);
        z_[pair] += factor * count * phi;
        float* row = S_.data() + pair * d_;
        for (int c = 0; c < d_; ++c) row[c] += taken * weighted[c];
      }
    }
  }

  const RetentionProblem& problem_;
  const RoundFunction round_;
  const int kv_, d_;
  const float scale_;
  std::vector<float> S_, z_;   // [D, d], [D]
  std::vector<float> before_;  // S before the chunk, rounded
};

// y of packed sequences, in chunks of problem.shape.chunk rows.
inline std::vector<float> PlainChunks(
    const RetentionProblem& problem, std::span<const int64_t> cu_seqlens,
    RoundFunction round = [](float x) { return x; }) {
  std::vector<float> y(problem.Q.size());
  for (size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
    for (int kv = 0; kv < problem.shape.heads_kv; ++kv) {
      PlainChunkedHead head(problem, kv, round);
      for (int64_t begin = cu_seqlens[s]; begin < cu_seqlens[s + 1]; begin += problem.shape.chunk)
        head.Run(begin, std::min(begin + problem.shape.chunk, cu_seqlens[s + 1]), y);
    }
  }
  return y;
}

}  // namespace statehouse::kernels
