// With num and den a row's sums, dnum = dY / den and dden = -(dY·y) / den, everything is linear in pairs:
//   dW[t, j] = dnum_t·v_j + dden_t,  w = (σ q·k)^p e^{G_t - G_j},  dG_t += w dW,  dG_j -= w dW
// and log_g[u] moves every G from u on, so its gradient is the sum of dG from u to the end.
#include "kernels/power_retention/backward_ref.h"

#include <cmath>
#include <span>

namespace statehouse::kernels {
namespace {

double Dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void Add(double factor, const double* x, int64_t n, double* to) {
  for (int64_t i = 0; i < n; ++i) to[i] += factor * x[i];
}

double Power(double x, int n) { return n == 0 ? 1.0 : x * Power(x, n - 1); }

// All monomials of one degree: which factors each has, and how often it occurs in (Σ x)^p.
class Expansion {
 public:
  Expansion(int head_dim, int degree) : degree_(degree) {
    std::vector<int> factors(degree);
    Enumerate(head_dim, 0, 0, 0, 1, factors);
  }
  int64_t size() const { return multiplicities_.size(); }

  std::vector<double> OfQuery(const double* x) const {
    std::vector<double> out(size());
    for (int64_t m = 0; m < size(); ++m) {
      out[m] = 1;
      for (const int i : Factors(m)) out[m] *= x[i];
    }
    return out;
  }
  std::vector<double> OfKey(const double* x) const { return Weighted(OfQuery(x)); }
  std::vector<double> Weighted(std::vector<double> values) const {
    for (int64_t m = 0; m < size(); ++m) values[m] *= multiplicities_[m];
    return values;
  }
  // dx += factor Σ_m by_monomial[m] d OfQuery(x)[m] / dx
  void AddGradient(double factor, const double* x, const std::vector<double>& by_monomial, double* dx) const {
    for (int64_t m = 0; m < size(); ++m) {
      const std::span<const int> factors = Factors(m);
      for (int a = 0; a < degree_; ++a) {
        double others = factor * by_monomial[m];
        for (int b = 0; b < degree_; ++b) {
          if (b != a) others *= x[factors[b]];
        }
        dx[factors[a]] += others;
      }
    }
  }

 private:
  std::span<const int> Factors(int64_t m) const { return std::span(factors_).subspan(m * degree_, degree_); }
  void Enumerate(int head_dim, int depth, int first, int run, double multiplicity, std::vector<int>& factors) {
    if (depth == degree_) {
      factors_.insert(factors_.end(), factors.begin(), factors.end());
      multiplicities_.push_back(multiplicity);
      return;
    }
    for (int i = first; i < head_dim; ++i) {
      factors[depth] = i;
      const int new_run = depth > 0 && i == first ? run + 1 : 1;
      Enumerate(head_dim, depth + 1, i, new_run, multiplicity * (depth + 1) / new_run, factors);
    }
  }

  int degree_;
  std::vector<int> factors_;  // [size, degree]
  std::vector<double> multiplicities_;
};

double LogGate(const RetentionDoubles& in, int64_t t, int kv) {
  return in.log_G.empty() ? 0.0 : in.log_G[t * in.heads_kv + kv];
}

// Sums of log gates from the first row on. [t]
std::vector<double> GateSums(const RetentionDoubles& in, int kv) {
  std::vector<double> G(in.t);
  double sum = 0;
  for (int64_t t = 0; t < in.t; ++t) G[t] = sum += LogGate(in, t, kv);
  return G;
}

// The outputs of one key/value head. Rows are sums over pairs, and only what was before them comes from a state: all
// weights of pairs are positive, while monomials of a state cancel, at degree 4 down to few digits.
class HeadForward {
 public:
  HeadForward(const RetentionDoubles& in, const Expansion& expansion, int kv, RetentionDoubleOutputs& out)
      : in_(in),
        expansion_(expansion),
        kv_(kv),
        d_(in.head_dim),
        D_(expansion.size()),
        G_(GateSums(in, kv)),
        out_(out) {}

  void Run() {
    const int group = in_.heads_q / in_.heads_kv;
    for (int64_t t = 0; t < in_.t; ++t) {
      for (int head = kv_ * group; head < (kv_ + 1) * group; ++head) Row(t, head);
    }
    for (int64_t t = 0; t < in_.t; ++t) Absorb(t);
  }

 private:
  const double* Key(int64_t j) const { return in_.K.data() + (j * in_.heads_kv + kv_) * d_; }
  const double* Value(int64_t j) const { return in_.V.data() + (j * in_.heads_kv + kv_) * d_; }

  void Row(int64_t t, int head) {
    const int64_t row = t * in_.heads_q + head;
    const double* q = in_.Q.data() + row * d_;
    double* y = out_.y.data() + row * d_;
    double denominator = 0;
    for (int64_t j = 0; j <= t; ++j) {
      const double weight = Power(in_.scale * Dot(q, Key(j), d_), in_.degree) * std::exp(G_[t] - G_[j]);
      denominator += weight;
      Add(weight, Value(j), d_, y);
    }
    if (!in_.S.empty()) {
      const double factor = Power(in_.scale, in_.degree) * std::exp(G_[t]);
      const std::vector<double> phi = expansion_.OfQuery(q);
      denominator += factor * Dot(phi.data(), in_.z.data() + kv_ * D_, D_);
      for (int64_t m = 0; m < D_; ++m) Add(factor * phi[m], in_.S.data() + (kv_ * D_ + m) * d_, d_, y);
    }
    out_.denominator[row] = denominator;
    for (int i = 0; i < d_; ++i) y[i] = denominator > 0 ? y[i] / denominator : 0.0;
  }

  // The row becomes part of the state.
  void Absorb(int64_t t) {
    const double gate = std::exp(LogGate(in_, t, kv_));
    const std::vector<double> key = expansion_.OfKey(Key(t));
    for (int64_t m = 0; m < D_; ++m) {
      double* S = out_.S.data() + (kv_ * D_ + m) * d_;
      for (int i = 0; i < d_; ++i) S[i] *= gate;
      Add(key[m], Value(t), d_, S);
      double& z = out_.z[kv_ * D_ + m];
      z = gate * z + key[m];
    }
  }

  const RetentionDoubles& in_;
  const Expansion& expansion_;
  const int kv_, d_;
  const int64_t D_;
  const std::vector<double> G_;
  RetentionDoubleOutputs& out_;
};

// The gradient of one key/value head.
class HeadBackward {
 public:
  HeadBackward(const RetentionDoubles& in, const RetentionDoubleOutputs& out, const std::vector<double>& dY,
               const std::vector<double>& dS_final, const std::vector<double>& dz_final, const Expansion& expansion,
               int kv, RetentionGradients& gradients)
      : in_(in),
        out_(out),
        dY_(dY),
        expansion_(expansion),
        kv_(kv),
        d_(in.head_dim),
        D_(expansion.size()),
        gradients_(gradients),
        G_(GateSums(in, kv)),
        dG_(in.t) {
    if (!in.S.empty()) S_ = in.S.data() + kv * D_ * d_, z_ = in.z.data() + kv * D_;
    if (!dS_final.empty()) dS_final_ = dS_final.data() + kv * D_ * d_, dz_final_ = dz_final.data() + kv * D_;
  }

  void Run() {
    const int group = in_.heads_q / in_.heads_kv;
    for (int head = kv_ * group; head < (kv_ + 1) * group; ++head) {
      for (int64_t t = 0; t < in_.t; ++t) Row(t, head);
    }
    if (dS_final_ != nullptr) FinalState();
    double sum = 0;
    for (int64_t t = in_.t - 1; t >= 0; --t) gradients_.dlog_G[t * in_.heads_kv + kv_] = sum += dG_[t];
  }

 private:
  const double* Key(int64_t j) const { return in_.K.data() + (j * in_.heads_kv + kv_) * d_; }
  const double* Value(int64_t j) const { return in_.V.data() + (j * in_.heads_kv + kv_) * d_; }
  double* KeyGradient(int64_t j) { return gradients_.dK.data() + (j * in_.heads_kv + kv_) * d_; }
  double* ValueGradient(int64_t j) { return gradients_.dV.data() + (j * in_.heads_kv + kv_) * d_; }

  void Row(int64_t t, int head) {
    const int64_t row = t * in_.heads_q + head;
    const double denominator = out_.denominator[row];
    if (denominator <= 0) return;
    std::vector<double> dnum(dY_.begin() + row * d_, dY_.begin() + (row + 1) * d_);
    for (double& x : dnum) x /= denominator;
    const double dden = -Dot(dnum.data(), out_.y.data() + row * d_, d_);
    const double* q = in_.Q.data() + row * d_;
    double* dq = gradients_.dQ.data() + row * d_;
    for (int64_t j = 0; j <= t; ++j) {
      const double decay = std::exp(G_[t] - G_[j]), score = in_.scale * Dot(q, Key(j), d_);
      const double dW = Dot(dnum.data(), Value(j), d_) + dden;
      const double weight = Power(score, in_.degree) * decay;
      const double dscore = in_.degree * Power(score, in_.degree - 1) * in_.scale * decay * dW;
      Add(dscore, Key(j), d_, dq);
      Add(dscore, q, d_, KeyGradient(j));
      Add(weight, dnum.data(), d_, ValueGradient(j));
      dG_[t] += weight * dW;
      dG_[j] -= weight * dW;
    }
    InitialState(t, q, dnum, dden, dq);
  }

  // What a row gives to the initial state, and the state to the row.
  void InitialState(int64_t t, const double* q, const std::vector<double>& dnum, double dden, double* dq) {
    const double factor = Power(in_.scale, in_.degree) * std::exp(G_[t]);
    const std::vector<double> phi = expansion_.OfQuery(q);
    for (int64_t m = 0; m < D_; ++m) {
      Add(factor * phi[m], dnum.data(), d_, gradients_.dS.data() + (kv_ * D_ + m) * d_);
      gradients_.dz[kv_ * D_ + m] += factor * phi[m] * dden;
    }
    if (S_ == nullptr) return;
    std::vector<double> by_monomial(D_);
    for (int64_t m = 0; m < D_; ++m) by_monomial[m] = Dot(S_ + m * d_, dnum.data(), d_) + z_[m] * dden;
    expansion_.AddGradient(factor, q, by_monomial, dq);
    dG_[t] += factor * Dot(phi.data(), by_monomial.data(), D_);
  }

  void FinalState() {
    const int64_t last = in_.t - 1;
    const double end = in_.t == 0 ? 0.0 : G_[last];
    for (int64_t j = 0; j < in_.t; ++j) {
      const double decay = std::exp(end - G_[j]);
      const std::vector<double> phi = expansion_.OfKey(Key(j));
      std::vector<double> by_monomial(D_);
      for (int64_t m = 0; m < D_; ++m) {
        by_monomial[m] = Dot(dS_final_ + m * d_, Value(j), d_) + dz_final_[m];
        Add(decay * phi[m], dS_final_ + m * d_, d_, ValueGradient(j));
      }
      const double moved = decay * Dot(phi.data(), by_monomial.data(), D_);
      dG_[last] += moved;
      dG_[j] -= moved;
      expansion_.AddGradient(decay, Key(j), expansion_.Weighted(std::move(by_monomial)), KeyGradient(j));
    }
    const double decay = std::exp(end);
    Add(decay, dS_final_, D_ * d_, gradients_.dS.data() + kv_ * D_ * d_);
    Add(decay, dz_final_, D_, gradients_.dz.data() + kv_ * D_);
    if (S_ == nullptr || in_.t == 0) return;
    dG_[last] += decay * (Dot(dS_final_, S_, D_ * d_) + Dot(dz_final_, z_, D_));
  }

  const RetentionDoubles& in_;
  const RetentionDoubleOutputs& out_;
  const std::vector<double>& dY_;
  const Expansion& expansion_;
  const int kv_, d_;
  const int64_t D_;
  RetentionGradients& gradients_;
  const std::vector<double> G_;  // [t] sums of log gates
  std::vector<double> dG_;       // [t]
  const double* S_ = nullptr;
  const double* z_ = nullptr;
  const double* dS_final_ = nullptr;
  const double* dz_final_ = nullptr;
};

}  // namespace

RetentionDoubleOutputs PowerRetentionForwardRef(const RetentionDoubles& in) {
  const Expansion expansion(in.head_dim, in.degree);
  const int64_t states = in.heads_kv * expansion.size();
  RetentionDoubleOutputs out{std::vector<double>(in.Q.size()), std::vector<double>(in.t * in.heads_q), in.S, in.z};
  if (in.S.empty()) out.S.resize(states * in.head_dim), out.z.resize(states);
  for (int kv = 0; kv < in.heads_kv; ++kv) HeadForward(in, expansion, kv, out).Run();
  return out;
}

RetentionGradients PowerRetentionBackwardRef(const RetentionDoubles& in, const std::vector<double>& dY,
                                             const std::vector<double>& dS_final, const std::vector<double>& dz_final) {
  const Expansion expansion(in.head_dim, in.degree);
  const int64_t states = in.heads_kv * expansion.size();
  RetentionGradients out;
  out.dQ.resize(in.Q.size());
  out.dK.resize(in.K.size());
  out.dV.resize(in.V.size());
  out.dlog_G.resize(in.t * in.heads_kv);
  out.dS.resize(states * in.head_dim);
  out.dz.resize(states);
  const RetentionDoubleOutputs forward = PowerRetentionForwardRef(in);
  for (int kv = 0; kv < in.heads_kv; ++kv) HeadBackward(in, forward, dY, dS_final, dz_final, expansion, kv, out).Run();
  return out;
}

}  // namespace statehouse::kernels
