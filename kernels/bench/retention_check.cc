// Rows of results and gradients from the definition, in double.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "kernels/bench/retention_case.h"

namespace statehouse::kernels::bench {
namespace {

// Beyond this a key's weight changes no digit that is checked.
constexpr double kForgotten = -60;

// Relative error of what is compared so far.
class Difference {
 public:
  void Add(double got, double want) {
    error_ += (got - want) * (got - want);
    norm_ += want * want;
  }
  double Relative() const {
    const double out = std::sqrt(error_ / norm_);
    return std::isfinite(out) ? out : std::numeric_limits<double>::infinity();
  }

 private:
  double error_ = 0, norm_ = 0;
};

class Rows {
 public:
  Rows(const RetentionCase& it, const HostInputs& in) : it_(it), in_(in) {}

  int kv(int head) const { return head / (it_.heads_q / it_.heads_kv); }
  const float* Query(const std::vector<float>& all, int64_t row, int head) const {
    return all.data() + (row * it_.heads_q + head) * it_.head_dim;
  }
  const float* Key(const std::vector<float>& all, int64_t row, int head_kv) const {
    return all.data() + (row * it_.heads_kv + head_kv) * it_.head_dim;
  }
  float Gate(int64_t row, int head_kv) const { return in_.log_G[row * it_.heads_kv + head_kv]; }
  double Dot(const float* a, const float* b) const {
    double sum = 0;
    for (int i = 0; i < it_.head_dim; ++i) sum += static_cast<double>(a[i]) * b[i];
    return sum;
  }

 private:
  const RetentionCase& it_;
  const HostInputs& in_;
};

// The gradients of one row, pair by pair.
class GradientRows {
 public:
  GradientRows(const RetentionCase& it, const HostInputs& in, const HostGradients& gradients)
      : it_(it), in_(in), out_(gradients), rows_(it, in) {}

  // Of dQ at (row, head), of a sequence that begins at `begin`.
  const std::vector<double>& Query(int64_t begin, int64_t row, int head) {
    Clear();
    const int kv = rows_.kv(head);
    double decay = 0;
    for (int64_t j = row; j >= begin && decay > kForgotten; --j) {
      AddPair(row, j, head, kv, decay);
      decay += rows_.Gate(j, kv);
    }
    return dq_;
  }
  // Of dK and dV at (row, kv), of a sequence that ends before `end`.
  void Key(int64_t end, int64_t row, int kv) {
    Clear();
    const int group = it_.heads_q / it_.heads_kv;
    double decay = 0;
    for (int64_t t = row; t < end && decay > kForgotten; ++t) {
      if (t > row) decay += rows_.Gate(t, kv);
      for (int head = kv * group; head < (kv + 1) * group; ++head) AddPair(t, row, head, kv, decay);
    }
  }
  const std::vector<double>& dk() const { return dk_; }
  const std::vector<double>& dv() const { return dv_; }

 private:
  void Clear() {
    for (std::vector<double>* sums : {&dq_, &dk_, &dv_}) sums->assign(it_.head_dim, 0.0);
  }
  void AddPair(int64_t t, int64_t j, int head, int kv, double decay) {
    const float *q = rows_.Query(in_.Q, t, head), *y = rows_.Query(out_.y, t, head),
                *dY = rows_.Query(out_.dY, t, head);
    const float *k = rows_.Key(in_.K, j, kv), *v = rows_.Key(in_.V, j, kv);
    const double s = rows_.Dot(q, k), dW = rows_.Dot(dY, v) - rows_.Dot(dY, y);
    const double a = std::exp(decay) / it_.head_dim / out_.denominator[t * it_.heads_q + head];
    for (int i = 0; i < it_.head_dim; ++i) {
      dq_[i] += 2 * a * s * dW * k[i];
      dk_[i] += 2 * a * s * dW * q[i];
      dv_[i] += a * s * s * dY[i];
    }
  }

  const RetentionCase& it_;
  const HostInputs& in_;
  const HostGradients& out_;
  const Rows rows_;
  std::vector<double> dq_, dk_, dv_;
};

}  // namespace

double ForwardError(const RetentionCase& it, const HostInputs& in, const std::vector<float>& y, int rows) {
  const Rows of(it, in);
  std::mt19937_64 rng(std::random_device{}());
  Difference difference;
  for (int sample = 0; sample < rows; ++sample) {
    const int64_t begin = static_cast<int64_t>(rng() % it.batch) * it.length;
    const int64_t t = begin + (sample == 0 ? it.length - 1 : static_cast<int64_t>(rng() % it.length));
    const int head = static_cast<int>(rng() % it.heads_q), kv = of.kv(head);
    std::vector<double> sums(it.head_dim);
    double denominator = 0, decay = 0;
    for (int64_t j = t; j >= begin && decay > kForgotten; --j) {
      const double score = of.Dot(of.Query(in.Q, t, head), of.Key(in.K, j, kv));
      const double weight = score * score * std::exp(decay);
      for (int i = 0; i < it.head_dim; ++i) sums[i] += weight * of.Key(in.V, j, kv)[i];
      denominator += weight;
      decay += of.Gate(j, kv);
    }
    for (int i = 0; i < it.head_dim; ++i) difference.Add(of.Query(y, t, head)[i], sums[i] / denominator);
  }
  return difference.Relative();
}

double GradientError(const RetentionCase& it, const HostInputs& in, const HostGradients& gradients, int rows) {
  GradientRows want(it, in, gradients);
  const Rows of(it, in);
  std::mt19937_64 rng(std::random_device{}());
  Difference dq, dk, dv;
  for (int sample = 0; sample < rows; ++sample) {
    const int64_t begin = static_cast<int64_t>(rng() % it.batch) * it.length;
    const int64_t row = begin + (sample == 0 ? it.length - 1 : static_cast<int64_t>(rng() % it.length));
    const int head = static_cast<int>(rng() % it.heads_q), kv = of.kv(head);
    const std::vector<double>& query = want.Query(begin, row, head);
    for (int i = 0; i < it.head_dim; ++i) dq.Add(of.Query(gradients.dQ, row, head)[i], query[i]);
    want.Key(begin + it.length, row, kv);
    for (int i = 0; i < it.head_dim; ++i) {
      dk.Add(of.Key(gradients.dK, row, kv)[i], want.dk()[i]);
      dv.Add(of.Key(gradients.dV, row, kv)[i], want.dv()[i]);
    }
  }
  return std::max({dq.Relative(), dk.Relative(), dv.Relative()});
}

}  // namespace statehouse::kernels::bench
