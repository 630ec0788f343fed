// The gradients of power retention as a plain program computes them, in the form that the GPU's kernels use: pairs of
// rows within chunks, states across them. In double and without rounding it is exact; with float, and what matrix
// products take rounded to 16 bits, it is the yardstick of a kernel's error. One sequence; degree 2, or degree 4 in one
// chunk and without states.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "kernels/power_retention/backward_ref.h"

namespace statehouse::kernels {

struct PlainOptions {
  int64_t chunk = 1;                                                 // rows
  std::function<double(double)> round = [](double x) { return x; };  // of operands and results
};

template <typename Real>
class PlainBackward {
 public:
  // y and denominator are what the forward pass left; the rest as for PowerRetentionBackwardRef().
  PlainBackward(const RetentionDoubles& in, const std::vector<double>& y, const std::vector<double>& denominator,
                const std::vector<double>& dY, const std::vector<double>& dS_final, const std::vector<double>& dz_final,
                const PlainOptions& options)
      : in_(in),
        Q_(Converted(in.Q)),
        K_(Converted(in.K)),
        V_(Converted(in.V)),
        y_(Converted(y)),
        dY_(Converted(dY)),
        denominator_(denominator),
        options_(options),
        d_(in.head_dim) {
    for (int i = 0; i < d_; ++i) {
      for (int j = i; j < d_; ++j) pairs_.push_back({i, j, i == j ? Real{1} : Real{2}});
    }
    D_ = static_cast<int64_t>(pairs_.size());
    out_.dQ.resize(in.Q.size()), out_.dK.resize(in.K.size()), out_.dV.resize(in.V.size());
    out_.dlog_G.resize(in.t * in.heads_kv);
    has_states_ = in.t > options.chunk || !in.S.empty() || !dS_final.empty();
    if (has_states_) out_.dS.resize(in.heads_kv * D_ * d_), out_.dz.resize(in.heads_kv * D_);
    for (int kv = 0; kv < in.heads_kv; ++kv) RunHead(kv, dS_final, dz_final);
    for (std::vector<double>* gradient : {&out_.dQ, &out_.dK, &out_.dV}) {
      for (double& x : *gradient) x = options.round(x);
    }
  }
  const RetentionGradients& gradients() const { return out_; }

 private:
  struct Pair {
    int i, j;
    Real count;  // how often it occurs in (Σ x)²
  };
  struct State {  // per pair, without its count; of a gradient: by what is stored, with it
    std::vector<Real> S, z;
  };
  struct Rows {  // a chunk
    int64_t first, count;
    std::vector<Real> L;  // gate sums
  };

  Real Round(Real x) const { return static_cast<Real>(options_.round(x)); }
  static std::vector<Real> Converted(const std::vector<double>& from) {
    return std::vector<Real>(from.begin(), from.end());
  }
  const Real* Row(const std::vector<Real>& from, int64_t row) const { return from.data() + row * d_; }
  static Real Dot(const Real* a, const Real* b, int n) {
    Real sum = 0;
    for (int i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
  }
  static void Add(Real factor, const Real* x, int n, Real* to) {
    for (int i = 0; i < n; ++i) to[i] += factor * x[i];
  }

  State Empty() const { return {std::vector<Real>(D_ * d_), std::vector<Real>(D_)}; }
  State Rounded(State state) const {
    for (Real& x : state.S) x = Round(x);
    return state;
  }
  // state = decay state + count(pair) Σ φ(x) [factor u, weight], operands rounded.
  void Fold(const Real* x, const Real* values, Real factor, Real weight, bool counts, State& state) const {
    std::vector<Real> u(values, values + d_);
    for (Real& element : u) element = Round(factor * element);
    for (int64_t m = 0; m < D_; ++m) {
      const Real product = x[pairs_[m].i] * x[pairs_[m].j], count = counts ? pairs_[m].count : 1;
      Add(count * Round(product), u.data(), d_, state.S.data() + m * d_);
      state.z[m] += count * weight * product;
    }
  }
  static void Decay(Real decay, State& state) {
    for (Real& x : state.S) x *= decay;
    for (Real& x : state.z) x *= decay;
  }
  // dx += factor · derivative of Σ_m x_i x_j (S_m·u + weight z_m); `counts`: each pair as often as it occurs.
  void FromState(const State& state, const Real* x, const Real* u, Real weight, bool counts, Real factor,
                 std::vector<Real>& dx) const {
    for (int64_t m = 0; m < D_; ++m) {
      const auto [i, j, count] = pairs_[m];
      const Real by_pair = factor * (counts ? count : 1) * (Dot(state.S.data() + m * d_, u, d_) + weight * state.z[m]);
      dx[i] += by_pair * x[j];
      dx[j] += by_pair * x[i];
    }
  }

  void RunHead(int kv, const std::vector<double>& dS_final, const std::vector<double>& dz_final) {
    kv_ = kv;
    std::vector<Rows> chunks;
    for (int64_t first = 0; first < in_.t; first += options_.chunk) {
      Rows rows{first, std::min(options_.chunk, in_.t - first), {}};
      double sum = 0;
      for (int64_t c = 0; c < rows.count; ++c) {
        if (!in_.log_G.empty()) sum += in_.log_G[(first + c) * in_.heads_kv + kv];
        rows.L.push_back(static_cast<Real>(sum));
      }
      chunks.push_back(std::move(rows));
    }
    std::vector<State> before;  // each chunk
    State state = Empty(), gradient = Empty();
    if (has_states_) {
      Import(in_.S, in_.z, false, state);
      for (const Rows& rows : chunks) {
        before.push_back(Rounded(state));
        Decay(std::exp(rows.L.back()), state);
        for (int64_t c = 0; c < rows.count; ++c) {
          const Real left = std::exp(rows.L.back() - rows.L[c]);
          Fold(Row(K_, KeyRow(rows, c)), Row(V_, KeyRow(rows, c)), left, left, false, state);
        }
      }
      Import(dS_final, dz_final, true, gradient);
    }
    for (int64_t n = static_cast<int64_t>(chunks.size()) - 1; n >= 0; --n) {
      RunChunk(chunks[n], has_states_ ? &before[n] : nullptr, Rounded(gradient));
      if (has_states_) FoldGradient(chunks[n], gradient);
    }
    if (!has_states_) return;
    for (int64_t m = 0; m < D_; ++m) {
      out_.dz[kv * D_ + m] = gradient.z[m] / pairs_[m].count;
      for (int i = 0; i < d_; ++i) out_.dS[(kv * D_ + m) * d_ + i] = gradient.S[m * d_ + i] / pairs_[m].count;
    }
  }
  // From the canonical form, whose elements hold the counts.
  void Import(const std::vector<double>& S, const std::vector<double>& z, bool is_gradient, State& state) const {
    if (S.empty()) return;
    for (int64_t m = 0; m < D_; ++m) {
      const Real factor = is_gradient ? pairs_[m].count : 1 / pairs_[m].count;
      state.z[m] = factor * static_cast<Real>(z[kv_ * D_ + m]);
      for (int i = 0; i < d_; ++i) state.S[m * d_ + i] = factor * static_cast<Real>(S[(kv_ * D_ + m) * d_ + i]);
    }
  }

  int64_t KeyRow(const Rows& rows, int64_t c) const { return (rows.first + c) * in_.heads_kv + kv_; }
  int64_t QueryRow(const Rows& rows, int64_t c, int head) const { return (rows.first + c) * in_.heads_q + head; }
  int group() const { return in_.heads_q / in_.heads_kv; }
  // σ^p / den and dY·y of a query's row.
  Real Factor(int64_t row) const {
    const double scale = std::pow(in_.scale, in_.degree);
    return denominator_[row] > 0 ? static_cast<Real>(scale / denominator_[row]) : 0;
  }
  Real Delta(int64_t row) const { return Dot(Row(dY_, row), Row(y_, row), d_); }

  void FoldGradient(const Rows& rows, State& gradient) const {
    Decay(std::exp(rows.L.back()), gradient);
    for (int head = kv_ * group(); head < (kv_ + 1) * group(); ++head) {
      for (int64_t c = 0; c < rows.count; ++c) {
        const int64_t row = QueryRow(rows, c, head);
        const Real factor = Factor(row) * std::exp(rows.L[c]);
        Fold(Row(Q_, row), Row(dY_, row), factor, -factor * Delta(row), true, gradient);
      }
    }
  }

  // All rows of a chunk from the state before it and the gradient of the state after it.
  void RunChunk(const Rows& rows, const State* before, const State& after) {
    std::vector<std::vector<Real>> dK(rows.count, std::vector<Real>(d_)), dV = dK;
    std::vector<Real> leaving(rows.count), entering(rows.count);  // Σ w dW with later chunks; with the rest, row - key
    double crossing = 0;
    if (before != nullptr) {
      for (int64_t c = 0; c < rows.count; ++c) {
        const Real *k = Row(K_, KeyRow(rows, c)), *v = Row(V_, KeyRow(rows, c));
        const Real left = std::exp(rows.L.back() - rows.L[c]);
        FromState(after, k, v, 1, false, left, dK[c]);
        leaving[c] = Dot(k, dK[c].data(), d_) / 2;
        for (int64_t m = 0; m < D_; ++m)
          Add(left * Round(k[pairs_[m].i] * k[pairs_[m].j]), after.S.data() + m * d_, d_, dV[c].data());
      }
      for (int64_t m = 0; m < D_; ++m) {
        crossing += after.z[m] * before->z[m] + Dot(after.S.data() + m * d_, before->S.data() + m * d_, d_);
      }
      crossing *= std::exp(rows.L.back());
    }
    for (int head = kv_ * group(); head < (kv_ + 1) * group(); ++head) {
      for (int64_t t = 0; t < rows.count; ++t) RunRow(rows, t, head, before, dK, dV, entering);
    }
    double later = 0, earlier = 0;
    for (int64_t c = rows.count - 1; c >= 0; --c) later += entering[c];
    for (int64_t c = 0; c < rows.count; ++c) {
      out_.dlog_G[KeyRow(rows, c)] = crossing + later + earlier;
      later -= entering[c], earlier += leaving[c];
      std::copy(dK[c].begin(), dK[c].end(), out_.dK.begin() + KeyRow(rows, c) * d_);
      std::copy(dV[c].begin(), dV[c].end(), out_.dV.begin() + KeyRow(rows, c) * d_);
    }
  }

  void RunRow(const Rows& rows, int64_t t, int head, const State* before, std::vector<std::vector<Real>>& dK,
              std::vector<std::vector<Real>>& dV, std::vector<Real>& entering) {
    const int64_t row = QueryRow(rows, t, head);
    const Real *q = Row(Q_, row), *dY = Row(dY_, row);
    const Real factor = Factor(row), delta = Delta(row);
    std::vector<Real> dq(d_);
    if (before != nullptr) {
      FromState(*before, q, dY, -delta, true, factor * std::exp(rows.L[t]), dq);
      entering[t] += Dot(q, dq.data(), d_) / 2;
    }
    for (int64_t j = 0; j <= t; ++j) {
      const Real *k = Row(K_, KeyRow(rows, j)), *v = Row(V_, KeyRow(rows, j));
      const Real a = factor * std::exp(rows.L[t] - rows.L[j]), s = Dot(q, k, d_);
      const Real lower = a * (in_.degree == 2 ? s : s * s * s);  // s^(p-1) of the weight's s^p
      const Real dW = Dot(dY, v, d_) - delta, moved = lower * s * dW;
      const Real ds = Round(in_.degree * lower * dW);
      Add(ds, k, d_, dq.data());
      Add(ds, q, d_, dK[j].data());
      Add(Round(lower * s), dY, d_, dV[j].data());
      entering[t] += moved;
      entering[j] -= moved;
    }
    std::copy(dq.begin(), dq.end(), out_.dQ.begin() + row * d_);
  }

  const RetentionDoubles& in_;
  const std::vector<Real> Q_, K_, V_, y_, dY_;
  const std::vector<double>& denominator_;
  const PlainOptions& options_;
  const int d_;
  int64_t D_ = 0;
  int kv_ = 0;
  bool has_states_ = false;
  std::vector<Pair> pairs_;
  RetentionGradients out_;
};

}  // namespace statehouse::kernels
